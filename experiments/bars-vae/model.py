"""A variational autoencoder: a subclassed model with a `train_step` of its own."""

import keras
import tensorflow as tf


class Vae(keras.Model):
    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__(name="vae")
        self.latent = latent
        self.encoder = keras.Sequential(
            [
                keras.layers.Flatten(),
                keras.layers.Dense(hidden, activation="relu", name="hidden"),
                keras.layers.Dense(2 * latent, name="code"),
            ],
            name="encoder",
        )
        self.decoder = keras.Sequential(
            [
                keras.layers.Dense(hidden, activation="relu", name="hidden"),
                keras.layers.Dense(64, name="pixels"),
                keras.layers.Reshape((8, 8)),
            ],
            name="decoder",
        )
        self.draws = keras.random.SeedGenerator(1)  # saved with each checkpoint, so that a run goes on with its draws
        self.means = [keras.metrics.Mean(name=name) for name in ("loss", "reconstruction_loss", "divergence")]

    @property
    def metrics(self):
        return self.means

    def call(self, images):
        """The pictures (rows, 8, 8) again, after a way through `latent` numbers."""
        mean, _ = tf.split(self.encoder(images), 2, axis=1)
        return tf.sigmoid(self.decoder(mean))

    def losses_of(self, images, draw):
        mean, log_variance = tf.split(self.encoder(images), 2, axis=1)
        code = mean + draw * tf.exp(log_variance / 2) * keras.random.normal(tf.shape(mean), seed=self.draws)
        pixels = tf.nn.sigmoid_cross_entropy_with_logits(images, self.decoder(code))
        reconstruction = tf.reduce_mean(tf.reduce_sum(pixels, axis=(1, 2)))
        divergence = tf.reduce_mean(tf.reduce_sum((tf.exp(log_variance) + mean**2 - 1 - log_variance) / 2, axis=1))
        return reconstruction + divergence, reconstruction, divergence

    def told(self, losses):
        for mean, loss in zip(self.means, losses):
            mean.update_state(loss)
        return {mean.name: mean.result() for mean in self.means}

    def train_step(self, images):
        with tf.GradientTape() as tape:
            losses = self.losses_of(images, draw=1.0)
        gradients = tape.gradient(losses[0], self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return self.told(losses)

    def test_step(self, images):
        return self.told(self.losses_of(images, draw=0.0))


def build_model(params: dict) -> keras.Model:
    model = Vae(params["latent"], params["hidden"])
    model.compile(keras.optimizers.Adam(0.003))
    return model
