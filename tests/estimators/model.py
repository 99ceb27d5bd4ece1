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
        dropout=params.get("dropout"),
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


def build_decayed(params, run_config):
    rate = params.get("learning_rate", 0.1)
    return tf.estimator.DNNClassifier(
        [10],
        columns(),
        n_classes=3,
        config=run_config,
        optimizer=lambda: tf.keras.optimizers.legacy.Adagrad(rate, decay=1e-4),
    )


def build_combined(params, run_config):
    rates = params.get("rates", [0.01, 0.02])
    return tf.estimator.DNNLinearCombinedClassifier(
        linear_feature_columns=columns(),
        dnn_feature_columns=columns(),
        dnn_hidden_units=[4],
        n_classes=3,
        config=run_config,
        linear_optimizer=lambda: tf.keras.optimizers.legacy.Adagrad(rates[0], name="one"),
        dnn_optimizer=lambda: tf.keras.optimizers.legacy.Adagrad(rates[1], name="two"),
    )


class Counts(tf.estimator.SessionRunHook):
    """Keeps something to itself."""

    count = 0

    def after_run(self, run_context, run_values):
        self.count += 1


def plain_fn(features, labels, mode, params):
    """Variables of the kind that TensorFlow 1 had, a partitioned one, and a global step that leaps."""
    net = tf.compat.v1.feature_column.input_layer(features, columns())
    with tf.compat.v1.variable_scope("all", partitioner=params.get("partitioner"), use_resource=params.get("resource")):
        kernel = tf.compat.v1.get_variable("kernel", (4, 3))
    logits = tf.matmul(net, tf.convert_to_tensor(kernel))
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions={"probabilities": tf.nn.softmax(logits)})
    loss = tf.compat.v1.losses.sparse_softmax_cross_entropy(labels, logits) * params.get("weight", 1.0)
    if mode == tf.estimator.ModeKeys.EVAL:
        return tf.estimator.EstimatorSpec(mode, loss=loss)
    step = tf.compat.v1.train.get_global_step()
    if params.get("sampled"):
        weights = tf.compat.v1.get_variable("weights", (50, 4))
        biases = tf.compat.v1.get_variable("biases", (50,))
        classes = tf.cast(tf.reshape(labels, (-1, 1)), tf.int64)
        loss += tf.reduce_mean(tf.nn.sampled_softmax_loss(weights, biases, classes, net, 5, 50))
    if params.get("local"):
        collections = [tf.compat.v1.GraphKeys.LOCAL_VARIABLES]
        seen = tf.compat.v1.get_variable("seen", (), collections=collections, trainable=False)
        loss += 0.0 * tf.compat.v1.assign_add(seen, 1.0)
    train_op = tf.compat.v1.train.AdamOptimizer(0.01).minimize(loss, global_step=step)
    if params.get("leaps"):
        with tf.control_dependencies([train_op]):
            train_op = tf.compat.v1.assign_add(step, 1)
    scaffold = None
    if params.get("own_saver"):
        scaffold = tf.compat.v1.train.Scaffold(saver=tf.compat.v1.train.Saver())
    hooks = []
    if params.get("saves"):
        hooks = [tf.estimator.CheckpointSaverHook(params["saves"], save_steps=4)]
    if params.get("counts"):
        hooks = [Counts()]
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, scaffold=scaffold, training_hooks=hooks)


def build_of_keras(params, run_config):
    inputs = {name: tf.keras.Input((), name=name) for name in NAMES}
    net = tf.keras.layers.Concatenate()([tf.keras.layers.Reshape((1,))(inputs[name]) for name in NAMES])
    net = tf.keras.layers.Dense(params["hidden_units"][0], activation="relu", name="hidden")(net)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(3, name="logits")(net))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.legacy.Adam(0.05), loss, metrics=["accuracy"])
    form = params.get("checkpoint_format", "saver")
    return tf.keras.estimator.model_to_estimator(keras_model=model, config=run_config, checkpoint_format=form)


def build_plain(params, run_config):
    params = dict(params)
    if params.get("parts"):
        params["partitioner"] = tf.compat.v1.fixed_size_partitioner(params["parts"])
    return tf.estimator.Estimator(plain_fn, params=params, config=run_config)
