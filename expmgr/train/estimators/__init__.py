"""Training and asking a `tf.estimator.Estimator`: in a worker that has TensorFlow 2.14 or 2.15. Nobody else imports this."""
