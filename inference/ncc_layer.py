"""Keras layers of normalised cross-correlation; `inference.tf_ncc` computes.

`NCC` searches templates in images: the end of a siamese network. `NormalisedConvolution` is a
convolution with learned filters whose outputs are correlations, whatever the brightness and
contrast of its input.

Both compute and answer in float32 at least, under mixed precision too: what training looks at is
the difference of two peaks, which float16 does not hold.
"""

from __future__ import annotations

from typing import Any

from inference.keras_on_tensorflow import keras
from inference.tf_ncc import (
    Method,
    Shape,
    Similarity,
    Tensor,
    check_shapes,
    correlograms,
    normalised_convolution,
)


@keras.saving.register_keras_serializable(package="petalign")
class NCC(keras.layers.Layer):  # type: ignore[misc]
    """Correlograms (b, H - h + 1, W - w + 1, c) of templates in search images.

    Called with search images (b, H, W, c) and templates (b, h, w, c); see `tf_ncc.correlograms`.

    Parameters
    ----------
    method : {"auto", "fft", "spatial"}
        How to compute; the result is the same.
    similarity : {"pearson", "cosine"}
        With or without the means taken off.
    """

    def __init__(
        self,
        method: Method = "auto",
        similarity: Similarity = "pearson",
        *,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=_at_least_float32(dtype), **kwargs)
        self.method: Method = method
        self.similarity: Similarity = similarity

    def call(self, search: Tensor, template: Tensor) -> Tensor:
        """Return the correlogram of every template."""
        return correlograms(search, template, method=self.method, similarity=self.similarity)

    def compute_output_shape(self, search_shape: Shape, template_shape: Shape) -> Shape:
        """Return (b, H - h + 1, W - w + 1, c); None where a length is not known."""
        check_shapes(search_shape, template_shape, shared=(0, 3))
        return _valid_shape(search_shape, template_shape[1:3], search_shape[3])

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "method": self.method, "similarity": self.similarity}


@keras.saving.register_keras_serializable(package="petalign")
class NormalisedConvolution(keras.layers.Layer):  # type: ignore[misc]
    """Correlations (b, H - h + 1, W - w + 1, filters) of learned filters with all patches.

    Parameters
    ----------
    filters : int
        Number of output channels.
    kernel_size : (int, int)
        Height and width of the filters, px.
    method, similarity
        As of `NCC`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: tuple[int, int],
        method: Method = "auto",
        similarity: Similarity = "pearson",
        *,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=_at_least_float32(dtype), **kwargs)
        self.filters = filters
        self.kernel_size = (int(kernel_size[0]), int(kernel_size[1]))
        self.method: Method = method
        self.similarity: Similarity = similarity

    def build(self, input_shape: Shape) -> None:
        """Draw the filters."""
        shape = (*self.kernel_size, input_shape[3], self.filters)
        self.kernel = self.add_weight(shape, initializer="glorot_uniform", name="kernel")

    def call(self, images: Tensor) -> Tensor:
        """Return the correlation of every filter with every patch."""
        return normalised_convolution(
            images,
            keras.ops.convert_to_tensor(self.kernel),
            method=self.method,
            similarity=self.similarity,
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (b, H - h + 1, W - w + 1, filters); None where a length is not known."""
        return _valid_shape(input_shape, self.kernel_size, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        own = {
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "method": self.method,
            "similarity": self.similarity,
        }
        return {**super().get_config(), **own}


def siamese(network: keras.Model, ncc: NCC | None = None) -> keras.Model:
    """Return the model from [search, template] to correlograms, both through the one network.

    Parameters
    ----------
    network : keras.Model
        From grey values (b, y, x, 1) to features (b, y, x, c), as by `by_keras.build`; or to a list
        of them, as by `build_pyramid`: then there is a correlogram for each.
    ncc : NCC, optional
        The layer at the end.
    """
    search, template = (keras.Input((None, None, 1), name=n) for n in ("search", "template"))
    layer = ncc or NCC(name="ncc")
    seen, sought = network(search), network(template)
    if isinstance(seen, list):
        scores: Any = [layer(*pair) for pair in zip(seen, sought, strict=True)]
    else:
        scores = layer(seen, sought)
    return keras.Model([search, template], scores, name="siamese")


def _valid_shape(shape: Shape, size: Shape, channels: int | None) -> Shape:
    """Return the shape of what is left of (b, H, W, c) where a template of `size` fits in."""
    sides = (
        None if whole is None or part is None else whole - part + 1
        for whole, part in zip(shape[1:3], size, strict=True)
    )
    return (shape[0], *sides, channels)


def _at_least_float32(dtype: Any) -> Any:
    """Return the policy to compute by: float32 in place of those that compute in 16 bits."""
    policy = keras.dtype_policies.get(dtype) if dtype else keras.config.dtype_policy()
    return "float32" if policy.compute_dtype in ("float16", "bfloat16") else policy
