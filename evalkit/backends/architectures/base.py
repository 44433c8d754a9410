"""What an architecture is: a network that can be built to fit a set of weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch


class Architecture(ABC):
    """A network in code.

    Attributes
    ----------
    input_shape : tuple of (int or None)
        Shape of one input, without the batch: channels, height, width; None where any size goes.
    """

    input_shape: ClassVar[tuple[int | None, ...]]

    @classmethod
    @abstractmethod
    def build(cls, weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        """Build the network, sized to the weights; the caller loads them.

        Parameters
        ----------
        weights : mapping of str to Tensor
            The state dict, to read sizes such as the embedding's from.

        Raises
        ------
        KeyError
            A weight that a size is read from is missing.
        """
