"""Which installed packages a spec may name code of (`module:function`), in addition to the repository."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection

#: What models are made of. More are named by the setting `code_packages`.
_OF_MODELS = re.compile(r"keras|tf_keras|keras_\w+|tensorflow|tensorflow_\w+|numpy")


def may_be_named(module: str, packages: Collection[str]) -> bool:
    """Whether a spec may name code of the installed `module`. `packages`: those of the setting `code_packages`."""
    top = module.partition(".")[0]
    return bool(_OF_MODELS.fullmatch(top)) or (top in packages and top not in sys.stdlib_module_names)


def refused(reference: str, module: str) -> str:
    """That `reference` names code of `module`, which a spec may not."""
    return f"{reference} is code of {module.partition('.')[0]}, not of the repository, Keras, TensorFlow or NumPy"


def way_out(module: str) -> str:
    """What to do where code of `module` is wanted."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return "name a function of the repository, which may call it"
    allow = f'code_packages = ["{top}"] in [tool.expmgr] of pyproject.toml'
    return f"name a function of the repository; or allow the package: {allow}"
