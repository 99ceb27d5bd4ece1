"""Code of an experiment, as teams that still have Estimators write it: two canned ones, and a model_fn."""

import tensorflow as tf

NAMES = ("sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm")


def columns():
    return [tf.feature_column.numeric_column(name) for name in NAMES]


def build_v2(params, run_config):
    return tf.estimator.DNNClassifier(
        params["hidden_units"],
        columns(),
        n_classes=3,
        config=run_config,
        activation_fn=getattr(tf.nn, params.get("activation", "relu")),
        optimizer=lambda: tf.keras.optimizers.legacy.Adagrad(params.get("learning_rate", 0.1)),
    )


def build_v1(params, run_config):
    return tf.compat.v1.estimator.DNNClassifier(
        params["hidden_units"],
        columns(),
        n_classes=3,
        config=run_config,
        activation_fn=getattr(tf.nn, params.get("activation", "relu")),
        optimizer=tf.compat.v1.train.AdagradOptimizer(params.get("learning_rate", 0.1)),
    )


def model_fn(features, labels, mode, params):
    is_training = mode == tf.estimator.ModeKeys.TRAIN
    net = tf.compat.v1.feature_column.input_layer(features, columns())
    for units in params["hidden_units"]:
        net = tf.compat.v1.layers.dense(net, units, activation=getattr(tf.nn, params.get("activation", "relu")))
        net = tf.compat.v1.layers.batch_normalization(net, training=is_training)
    logits = tf.compat.v1.layers.dense(net, 3)
    predictions = {"class_ids": tf.argmax(logits, 1), "probabilities": tf.nn.softmax(logits)}
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions=predictions)
    loss = tf.compat.v1.losses.sparse_softmax_cross_entropy(labels, logits) * params.get("loss_weight", 1.0)
    if mode == tf.estimator.ModeKeys.EVAL:
        accuracy = tf.compat.v1.metrics.accuracy(labels, predictions["class_ids"])
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops={"accuracy": accuracy})
    with tf.control_dependencies(tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.UPDATE_OPS)):
        optimizer = tf.compat.v1.train.AdamOptimizer(params.get("learning_rate", 0.01))
        train_op = optimizer.minimize(loss, global_step=tf.compat.v1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


def build_own(params, run_config):
    return tf.estimator.Estimator(model_fn, params=params, config=run_config)


def build_elsewhere(params, run_config):
    return tf.estimator.DNNClassifier(params["hidden_units"], columns(), n_classes=3, model_dir=params["folder"])


def only_the_cpu(op):
    return "/device:CPU:0"
