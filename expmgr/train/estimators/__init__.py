"""Trains and uses a `tf.estimator.Estimator`, in a worker with TensorFlow 2.14 or 2.15."""
