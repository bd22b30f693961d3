"""Shapes in signatures are checked by beartype in every test: the hook must come before the first import."""

from jaxtyping import install_import_hook

install_import_hook("priorlens", "beartype.beartype")
