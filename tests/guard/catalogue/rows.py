"""The rows of the catalogue: changes that were tried one by one, and what is right to do about each.

`same` and `resume` may be restored, `warm-start` and `refuse` may not: restoring would be silent and wrong.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A change, and the right verdict."""

    change: str
    right: str


ROWS = {
    "00": Row("no change (control)", "same"),
    "01": Row("hidden width 10->20", "refuse"),
    "02": Row("depth +1 (equal width)", "refuse"),
    "03": Row("depth -1", "refuse"),
    "04": Row("number of classes 3->4", "refuse"),
    "06": Row("BatchNorm added", "refuse"),
    "07": Row("embedding vocab 30->34 (new words first)", "refuse"),
    "08": Row("RNN units 8->16", "refuse"),
    "09": Row("LSTM -> GRU", "refuse"),
    "10": Row("conv kernel 3->5", "refuse"),
    "11": Row("attention heads 2->4 (Keras MHA)", "refuse"),
    "13": Row("two equal-shaped layers swapped (names kept)", "refuse"),
    "14": Row("activation relu->tanh", "warm-start"),
    "16": Row("LayerNorm epsilon 1e-3->1", "warm-start"),
    "18": Row("conv stride 1->2", "refuse"),
    "19": Row("conv padding same->valid", "refuse"),
    "21": Row("pooling max->average", "warm-start"),
    "23": Row("attention heads 2->4 (hand-written, equal dim)", "refuse"),
    "25": Row("q and v projections exchange roles (code)", "refuse"),
    "26": Row("custom call() code changed", "refuse"),
    "27": Row("sub-layers swapped in call()", "refuse"),
    "30": Row("recurrent_activation sigmoid->tanh", "refuse"),
    "32": Row("RNN stateful on", "warm-start"),
    "34": Row("output heads swapped (equal shape)", "refuse"),
    "36": Row("input feature order permuted", "refuse"),
    "37": Row("a feature replaced by another (same place)", "refuse"),
    "38": Row("a feature renamed (same data)", "resume"),
    "39": Row("label order permuted (equal count)", "refuse"),
    "40": Row("vocab content permuted (outside model)", "refuse"),
    "42": Row("tokenizer lower-cases now", "refuse"),
    "44": Row("normalisation outside model: standard->min-max", "refuse"),
    "45": Row("Normalization layer adapted on other data", "resume"),
    "46": Row("image channels RGB->BGR", "refuse"),
    "48": Row("train/test split changed", "refuse"),
    "49": Row("optimizer Adam->SGD(momentum)", "warm-start"),
    "50": Row("optimizer Adam->RMSprop", "warm-start"),
    "52": Row("optimizer Adam->Adamax (equal slots)", "warm-start"),
    "53": Row("optimizer Adam->Nadam", "warm-start"),
    "54": Row("optimizer Adam->amsgrad", "warm-start"),
    "55": Row("learning rate .01->.001", "resume"),
    "56": Row("beta_1 .9->.5", "resume"),
    "57": Row("lr constant -> schedule", "resume"),
    "58": Row("lr schedule parameters changed", "resume"),
    "59": Row("clipnorm added", "resume"),
    "61": Row("gradient accumulation on", "resume"),
    "62": Row("one hidden layer frozen", "warm-start"),
    "64": Row("loss cross-entropy -> MSE", "warm-start"),
    "65": Row("L2 regularizer added", "resume"),
    "66": Row("dropout rate .1->.5", "resume"),
    "67": Row("dropout removed", "resume"),
    "68": Row("BatchNorm momentum .9->.5", "resume"),
    "70": Row("kernel initializer", "refuse"),
    "71": Row("seed 0->1", "refuse"),
    "72": Row("dtype float32->mixed_float16", "resume"),
    "73": Row("dtype float32->mixed_bfloat16", "resume"),
    "74": Row("dtype float32->bfloat16 (variables too)", "warm-start"),
    "75": Row("dtype float32->float64", "resume"),
    "76": Row("batch size 32->64", "resume"),
    "77": Row("metrics changed", "same"),
    "78": Row("more epochs", "same"),
    "79": Row("fewer epochs than done", "same"),
    "80": Row("layers renamed", "same"),
    "82": Row("attributes renamed", "same"),
    "83": Row("steps_per_execution 1->10", "same"),
}
