"""Operations that blend each pixel with another one: with its grey, or with the mean of its neighbours."""

from torch import Tensor


def grey(pixels: Tensor) -> Tensor:
    """Return the brightness of pixels (N, C, H, W), as whole numbers (N, 1, H, W)."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.unbind(dim=1)
    # The weights are torchvision's, which are those of ITU-R BT.601 but for the fourth digit.
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_().unsqueeze(1)


def blended(pixels: Tensor, greys: Tensor, saturation: Tensor, sharpness: Tensor) -> Tensor:
    """Change the saturation and the sharpness of images.

    Args:
        pixels: Whole numbers from 0 to 255 as float32 (N, C, H, W), which are overwritten.
        greys: Their brightness.
        saturation: By which share the distance of each pixel to its grey grows, (N, 1, 1, 1).
        sharpness: By which share the distance to the blurred image grows, (N, 1, 1, 1).

    Returns:
        Numbers in [0, 255] in the same form, which are to be rounded down.
    """
    softness = _softness(pixels) if min(pixels.shape[-2:]) > 2 else None
    if pixels.shape[1] == 3:
        pixels = pixels.mul_(1 + saturation).addcmul_(greys, saturation, value=-1)
    if softness is not None:
        pixels[..., 1:-1, 1:-1].addcmul_(softness, sharpness, value=-1)
    return pixels.clamp_(0, 255)


def _softness(pixels: Tensor) -> Tensor:
    """Return by how much blurred images differ, of all pixels but the outermost ones (N, C, H - 2, W - 2)."""
    width = pixels.shape[-1]
    columns = (pixels[..., :-2, :] + pixels[..., 1:-1, :]).add_(pixels[..., 2:, :]).flatten(2)
    middle = pixels[..., 1:-1, :].flatten(2)[..., 1:-1]
    # Rows are added up as one line, which a CPU does several times as fast; sums across the end of a row are left out.
    total = (columns[..., :-2] + columns[..., 1:-1]).add_(columns[..., 2:]).add_(middle, alpha=4)
    return total.mul_(1 / 13).round_().sub_(middle).unfold(-1, width - 2, width)
