"""Transfer: images made on another model, tried on this one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor, nn

from .base import Attack
from .errors import InputError
from .goals import Goal
from .runtime import frozen_eval


@dataclass(kw_only=True, eq=False)
class Transfer(Attack):
    """Another attack, on a surrogate; what it makes is tried on the model, of which the search uses nothing.

    An attack that knows the detector attacks the surrogate's where that has one, such as a calibrated
    `DefendedClassifier`. N. Papernot, P. McDaniel, I. Goodfellow, "Transferability in Machine Learning: from Phenomena
    to Black-Box Attacks using Adversarial Samples", 2016.

    Args:
        surrogate: gives logits (B, K) of the same images for the same K classes.
        made_by: the attack on the surrogate; its budget, restarts and batch size are this one's.
        eps, norm, restarts, seed, batch_size: as for every `Attack`.

    Raises:
        InputError: a surrogate or an attack that is none; from a call, whatever the attack on the surrogate raises.
    """

    name = "transfer"
    needs_gradient: ClassVar[bool] = False
    in_bfloat16: ClassVar[bool] = False

    surrogate: nn.Module = field(repr=False)
    made_by: Attack

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.surrogate, nn.Module):
            raise InputError(f"surrogate: got {type(self.surrogate).__name__}, must be a torch.nn.Module with logits")
        if not isinstance(self.made_by, Attack):
            raise InputError(f"made_by: got {type(self.made_by).__name__}, must be an attacks.Attack")

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        attack = replace(self.made_by.with_budget(self.eps, 1), norm=self.norm, batch_size=self.batch_size)
        with frozen_eval(self.surrogate):
            return attack.perturb(attack.searched(self.surrogate), x, y, attack.default_goal(self.surrogate))

    def passes(self, n_classes: int) -> int:
        return self.restarts * self.made_by.passes(n_classes)
