"""Normalised cross-correlation that TensorFlow computes and differentiates.

Two forms. `correlograms` searches each template in its own image, batch by batch and channel by
channel. `normalised_convolution` slides the same filters over all images, as a convolution does,
with mean and variance over all input channels of a patch. Each is computed in one of two ways with
one result: "spatial" multiplies at every place, "fft" multiplies spectra.

Sums of a patch lose digits where the image is bright and flat. So the image is centred first, which
changes no correlation, and the sums slide over it in float64; products are float32, or float64 if
the input is. A patch or template whose standard deviation is within the rounding of its own values
is flat: it correlates 0 with everything, and its gradient is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from scipy.fft import next_fast_len

from inference.errors import ShapeError
from inference.keras_on_tensorflow import tf

Tensor = Any
"""A `tf.Tensor`; TensorFlow ships no types."""
Method = Literal["auto", "fft", "spatial"]
Similarity = Literal["pearson", "cosine"]
"""Pearson's r, or without taking off the means, the cosine of the angle between two patches."""

Size = tuple[Any, Any]
"""Height and width: numbers, or tensors where they are known at run time only."""
Shape = Sequence[int | None]

CROSSOVER_PX = 196
"""Up to so many px (h * w) of a template the spatial way is the cheaper of the two with gradients,
on CPUs; soon after it is by far the dearer: ``python -m tests.benchmarks.ncc_layer.table``."""

_FLAT = 1e-12
"""A variance below this share of the largest squared value is rounding of the sums in float64."""
_EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}


def correlograms(
    search: Tensor, template: Tensor, *, method: Method = "auto", similarity: Similarity = "pearson"
) -> Tensor:
    """Correlate each template with every place of its own search image, per batch and channel.

    Parameters
    ----------
    search : tensor of shape (b, H, W, c)
        Floating point; float16 and bfloat16 are computed in float32.
    template : tensor of shape (b, h, w, c)
        Of the same dtype, h <= H and w <= W.
    method : {"auto", "fft", "spatial"}
        "auto" takes the faster one for the template's size, see `CROSSOVER_PX`.
    similarity : {"pearson", "cosine"}
        With or without the means taken off.

    Returns
    -------
    tensor of shape (b, H - h + 1, W - w + 1, c)
        In -1..1 but for rounding, indexed by where the template's first pixel lies. 0 where the
        patch or the template is flat. float64 for float64 input, else float32.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other.

    References
    ----------
    .. [1] J. P. Lewis, "Fast Normalized Cross-Correlation", Vision Interface, 1995.
    """
    check_shapes(search.shape, template.shape, shared=(0, 3))
    images, kernels = (_planes(x) for x in _floats(search, template))
    centred, norm = _patches(images, _size(kernels), similarity, axes=(2, 3))
    unit = _units(kernels, similarity, axes=(2, 3))
    if _chosen(method, _size(kernels)) == "fft":
        products = _products_by_fft(centred, unit, "bchw,bchw->bchw")
    else:
        products = _products_per_plane(centred, unit)
    return _channels_last(products * tf.cast(norm, products.dtype))


def normalised_convolution(
    images: Tensor, filters: Tensor, *, method: Method = "auto", similarity: Similarity = "pearson"
) -> Tensor:
    """Correlate every filter with every patch of every image, over all input channels at once.

    Parameters
    ----------
    images : tensor of shape (b, H, W, cin)
        Floating point; float16 and bfloat16 are computed in float32.
    filters : tensor of shape (h, w, cin, cout)
        Of the same dtype, as of a convolution.
    method, similarity
        See `correlograms`.

    Returns
    -------
    tensor of shape (b, H - h + 1, W - w + 1, cout)
        As of `correlograms`; the mean and the variance are those of h * w * cin values.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other.
    """
    check_shapes(images.shape, (None, *filters.shape[:3]), shared=(3,))
    pictures, kernels = _floats(images, filters)
    planes, kernels = _planes(pictures), tf.transpose(kernels, (3, 2, 0, 1))
    centred, norm = _patches(planes, _size(kernels), similarity, axes=(1, 2, 3))
    unit = _units(kernels, similarity, axes=(1, 2, 3))
    if _chosen(method, _size(kernels)) == "fft":
        products = _products_by_fft(centred, unit, "bihw,oihw->bohw")
        return _channels_last(products * tf.cast(norm, products.dtype))
    rows = tf.transpose(unit, (2, 3, 1, 0))
    products = tf.nn.conv2d(_channels_last(centred), rows, 1, "VALID")
    return products * tf.cast(_channels_last(norm), products.dtype)


# --------------------------------------------------------------------------- what is divided by


def _patches(
    images: Tensor, size: Size, similarity: Similarity, *, axes: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return the images (b, c, H, W), centred, and 1 over the norm of each patch, float64.

    Where patches go over channels (`axes` begins with 1), the norm has one channel. The centre
    changes no result, so no gradient goes through it.
    """
    centred, over_channels = images, 1 in axes
    if similarity == "pearson":
        wide = tf.cast(images, tf.float64)
        centre = tf.reduce_mean(wide, axes, keepdims=True)
        centred = tf.cast(wide - tf.stop_gradient(centre), images.dtype)
    wide = tf.cast(centred, tf.float64)
    number = tf.cast(size[0] * size[1] * (_side(images, 1) if over_channels else 1), tf.float64)
    spread = _box_sums(tf.square(wide), size, over_channels=over_channels)
    if similarity == "pearson":
        spread -= tf.square(_box_sums(wide, size, over_channels=over_channels)) / number
    return centred, _inverse_root(spread, number * _rounding(images, centred, axes))


def _units(kernels: Tensor, similarity: Similarity, *, axes: tuple[int, ...]) -> Tensor:
    """Return templates (n, c, h, w) of mean 0 and norm 1 over `axes`; flat ones become 0."""
    wide = tf.cast(kernels, tf.float64)
    if similarity == "pearson":
        wide -= tf.reduce_mean(wide, axes, keepdims=True)
    energy = tf.reduce_sum(tf.square(wide), axes, keepdims=True)
    number = tf.cast(tf.size(wide) / tf.size(energy), tf.float64)
    scale = _inverse_root(energy, number * _rounding(kernels, wide, axes))
    return tf.cast(wide * scale, kernels.dtype)


def _rounding(values: Tensor, centred: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the variance that is only rounding: of the values themselves, or of their sums."""
    of_values = tf.square(_EPSILON[values.dtype.name] * _largest(values, axes))
    return tf.stop_gradient(of_values + _FLAT * tf.square(_largest(centred, axes)))


def _largest(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    return tf.cast(tf.reduce_max(tf.abs(values), axes, keepdims=True), tf.float64)


def _inverse_root(energy: Tensor, floor: Tensor) -> Tensor:
    """Return energy ** -0.5, and 0 with a gradient of 0 up to the floor.

    There the root is taken of 1: an infinite gradient turns into NaN even where it is not used.
    """
    is_textured = energy > floor
    harmless = tf.where(is_textured, energy, tf.ones_like(energy))
    return tf.where(is_textured, tf.math.rsqrt(harmless), tf.zeros_like(energy))


def _box_sums(values: Tensor, size: Size, *, over_channels: bool) -> Tensor:
    """Sum (b, c, H, W) over boxes, one axis after the other: running sums of a row stay small."""
    if over_channels:
        values = tf.reduce_sum(values, 1, keepdims=True)
    h, w = size
    running = tf.pad(tf.cumsum(values, 2), [[0, 0], [0, 0], [1, 0], [0, 0]])
    values = running[:, :, h:] - running[:, :, :-h]
    running = tf.pad(tf.cumsum(values, 3), [[0, 0], [0, 0], [0, 0], [1, 0]])
    return running[..., w:] - running[..., :-w]


# --------------------------------------------------------------------------- products


def _products_by_fft(images: Tensor, kernels: Tensor, equation: str) -> Tensor:
    """Multiply spectra. What wraps around falls on places where the template would stick out."""
    (ny, nx), (h, w) = _size(images), _size(kernels)
    length = [_fast_length(ny), _fast_length(nx)]
    spectra = tf.signal.rfft2d(images, length)
    conjugates = tf.math.conj(tf.signal.rfft2d(kernels, length))
    products = tf.signal.irfft2d(tf.einsum(equation, spectra, conjugates), length)
    return products[..., : ny - h + 1, : nx - w + 1]


def _products_per_plane(images: Tensor, kernels: Tensor) -> Tensor:
    """Slide kernel (b, c) over plane (b, c): a depthwise convolution of a single image."""
    (ny, nx), (h, w), planes = _size(images), _size(kernels), _side(images, 0) * _side(images, 1)
    single = tf.transpose(tf.reshape(images, (1, planes, ny, nx)), (0, 2, 3, 1))
    filters = tf.transpose(tf.reshape(kernels, (planes, 1, h, w)), (2, 3, 0, 1))
    products = tf.nn.depthwise_conv2d(single, filters, (1, 1, 1, 1), "VALID")
    shape = (_side(images, 0), _side(images, 1), ny - h + 1, nx - w + 1)
    return tf.reshape(tf.transpose(products, (0, 3, 1, 2)), shape)


def _chosen(method: Method, size: Size) -> Method:
    if method != "auto":
        return method
    # A side that is known at run time only may be large: the Fourier way is never much slower.
    is_small = all(isinstance(n, int) for n in size) and size[0] * size[1] <= CROSSOVER_PX
    return "spatial" if is_small else "fft"


def _fast_length(side: int | Tensor) -> int | Tensor:
    """Return an even length of small prime factors, at least `side`."""
    if not isinstance(side, int):
        return (side + 31) // 32 * 32
    return 2 * next_fast_len((side + 1) // 2, real=True)


# --------------------------------------------------------------------------- shapes and types


def _floats(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors as float32, or all as float64 if one is."""
    wide = any(t.dtype == tf.float64 for t in tensors)
    return [tf.cast(t, tf.float64 if wide else tf.float32) for t in tensors]


def _planes(tensor: Tensor) -> Tensor:
    return tf.transpose(tensor, (0, 3, 1, 2))


def _channels_last(tensor: Tensor) -> Tensor:
    return tf.transpose(tensor, (0, 2, 3, 1))


def _side(tensor: Tensor, axis: int) -> int | Tensor:
    """Return a length as a number where it is known, else as a tensor."""
    known = tensor.shape[axis]
    return tf.shape(tensor)[axis] if known is None else int(known)


def _size(planes: Tensor) -> Size:
    return _side(planes, 2), _side(planes, 3)


def check_shapes(search: Shape, template: Shape, *, shared: tuple[int, ...]) -> None:
    """Check (b, H, W, c) against (b, h, w, c): `shared` axes agree, the template is no larger.

    Raises
    ------
    ShapeError
        If they do not fit; a length that is not known yet (None) fits all.
    """
    fits = len(search) == len(template) == 4
    if fits:
        pairs = list(zip(search, template, strict=True))
        known = [None not in pair for pair in pairs]
        equal = all(pairs[axis][0] == pairs[axis][1] for axis in shared if known[axis])
        inside = all(pairs[a][0] >= pairs[a][1] >= 1 for a in (1, 2) if known[a])  # type: ignore[operator]
        fits = equal and inside
    if not fits:
        names = " and ".join({0: "batch", 3: "channels"}[axis] for axis in shared)
        raise ShapeError(
            f"a search image (b, H, W, c) must have the same {names} as its template (b, h, w, c) "
            f"and be no smaller than it; got {tuple(search)} and {tuple(template)}"
        )
