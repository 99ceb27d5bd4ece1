# A subclassed model with a train_step of its own, and main(). Two lines are expmgr's.
import keras
import numpy as np
import tensorflow as tf

import expmgr


class Autoencoder(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8, activation="relu")])
        self.decoder = keras.Sequential([keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))])
        self.noise = keras.random.SeedGenerator(7)
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.loss_tracker]

    def call(self, images):
        return self.decoder(self.encoder(images))

    def train_step(self, images):
        noisy = images + 0.1 * keras.random.normal(tf.shape(images), seed=self.noise)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(images - self(noisy)))
        variables = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def test_step(self, images):
        self.loss_tracker.update_state(tf.reduce_mean(tf.square(images - self(images))))
        return {"loss": self.loss_tracker.result()}


def main():
    images = np.load("digits.npz")["images"].reshape(-1, 8, 8, 1).astype("float32") / 16
    train = tf.data.Dataset.from_tensor_slices(images[:1400]).shuffle(1400, seed=1).batch(32)
    model = Autoencoder()
    model.compile(optimizer="adam")
    expmgr.fit(model, train, epochs=5, validation_data=tf.data.Dataset.from_tensor_slices(images[1400:]).batch(64))


if __name__ == "__main__":
    main()
