# A GAN: two networks, no call, a Dataset that is shuffled, and nothing to evaluate. Three lines are expmgr's.
import keras
import numpy as np
import tensorflow as tf

import expmgr

params = expmgr.params({"latent": 4, "rate": 1e-3})


class Gan(keras.Model):
    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential(
            [keras.Input((params["latent"],)), keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))]
        )
        self.critic = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
        self.noise = keras.random.SeedGenerator(3)

    def compile(self, generator_optimizer, critic_optimizer):
        super().compile()
        self.generator_optimizer, self.critic_optimizer = generator_optimizer, critic_optimizer

    def train_step(self, images):
        noise = keras.random.normal((tf.shape(images)[0], params["latent"]), seed=self.noise)
        with tf.GradientTape() as one, tf.GradientTape() as two:
            real, made = self.critic(images), self.critic(self.generator(noise))
            critic_loss = tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(made))
            generator_loss = tf.reduce_mean(tf.nn.softplus(-made))
        weights = self.critic.trainable_weights
        self.critic_optimizer.apply_gradients(zip(one.gradient(critic_loss, weights), weights))
        weights = self.generator.trainable_weights
        self.generator_optimizer.apply_gradients(zip(two.gradient(generator_loss, weights), weights))
        return {"critic_loss": critic_loss, "generator_loss": generator_loss}


images = np.load("digits.npz")["images"].reshape(-1, 8, 8, 1).astype("float32") / 16
data = tf.data.Dataset.from_tensor_slices(images).shuffle(1800, seed=1).batch(32)
gan = Gan()
gan.compile(keras.optimizers.Adam(params["rate"]), keras.optimizers.Adam(params["rate"]))
expmgr.fit(gan, data, epochs=2)
