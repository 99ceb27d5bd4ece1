"""The training loop: steps on the device, evaluation, when each is due, and stopping."""
