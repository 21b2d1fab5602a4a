"""What every objective is: a module that gives the loss of a batch, with options and with a state of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ...data import Dataset
from ...models import EnergyModel
from ...types import InputError

_MODEL = "model."


@dataclass(frozen=True)
class ObjectiveOptions:
    """What can be set of an objective: fields with defaults, JSON values only, checked in `__post_init__`."""

    @property
    def adversarial(self) -> bool:
        """Whether the objective trains against an adversary, whose gradient steps are most of the work."""
        return False


class Objective(nn.Module, ABC):
    """What a network is trained to minimise.

    A subclass writes `forward`, lists its `metrics`, and may have `Options` of its own. Buffers, parameters and
    modules that it registers are saved and restored with the run, bit by bit.

    Attributes:
        requires: the Protocols of `models.base` that its model must offer.
        metrics: the names of what `forward` gives; "loss" is among them.
        Options: the class of its options, a frozen dataclass.
    """

    requires: ClassVar[tuple[type, ...]] = ()
    metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
    Options: ClassVar[type[ObjectiveOptions]] = ObjectiveOptions

    def __init__(self, model: EnergyModel, options: ObjectiveOptions) -> None:
        super().__init__()
        self.model = model
        self.options = options

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        """The batch means of `metrics`, scalars; "loss" is the one to descend.

        Args:
            x: (B, C, H, W) images in [0, 1].
            y: (B,) labels.
            progress: the share of all steps that is done, in [0, 1).
        """

    @property
    def uses_progress(self) -> bool:
        """Whether `forward` depends on `progress`: such a run cannot be made longer once it has begun."""
        return False

    def findings(self, trained: nn.Module, data: Dataset) -> dict[str, Any]:
        """What the card of a finished run says of the trained model beside its accuracy; JSON values only."""
        return {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser; a group without "lr" has the recipe's learning rate."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def own_state(self) -> dict[str, Tensor]:
        """The state dict without the model's part."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(_MODEL)}

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `own_state` gave.

        Raises:
            InputError: it is of another objective.
        """
        if state.keys() != self.own_state().keys():
            raise InputError(
                f"resume: the checkpoint has the objective's state {sorted(state)}, must be {sorted(self.own_state())}"
            )
        try:
            self.load_state_dict(dict(state), strict=False)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"resume: the checkpoint's state of the objective does not fit ({reason})") from error
