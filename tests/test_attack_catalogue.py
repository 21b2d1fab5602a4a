"""The catalogue: attacks by name, their parameters, and the classes that are exported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import attacks


def test_an_attack_of_ones_own_is_loaded_by_module_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import attacks\n"
        "class Nudge(attacks.Attack):\n"
        "    name = 'nudge'\n"
        "    def perturb(self, victim, x, y, goal):\n"
        "        return x + self.threat.eps\n"
        "def not_an_attack(**_):\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    attack = attacks.load("mine:Nudge", eps=0.25)
    outcome = attack(
        lambda x: torch.cat([x.flatten(1), x.flatten(1) + 1], dim=1), torch.full((1, 1, 1, 1), 0.5), torch.tensor([1])
    )
    assert outcome.distance.item() == pytest.approx(0.25)
    assert attacks.engine_of("mine:Nudge") is None
    with pytest.raises(attacks.InputError, match="made a int, must make an attacks.Attack"):
        attacks.load("mine:not_an_attack")
    with pytest.raises(attacks.InputError, match="'mine:Nugde' cannot be imported"):
        attacks.load("mine:Nugde")
    for place in ("math:pi", "os:path", ":x", "json:dumps"):
        with pytest.raises(attacks.InputError, match="must be module:factory|must make an"):
            attacks.load(place, eps=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "pdg"}, r"attack: unknown name 'pdg'; did you mean 'pgd'\?"),
        ({"name": "pgd", "engine": "torchattack"}, "engine: unknown name 'torchattack'; did you mean 'torchattacks'"),
        ({"name": "selective", "engine": "art"}, r"engine: unknown name 'art' \(known: own\)"),
        ({"name": "pgd", "epss": 0.1}, "parameter of pgd: unknown name 'epss'; did you mean 'eps'"),
        ({"name": "fgsm", "steps": 3}, "parameter of fgsm: unknown name 'steps'"),
        ({"name": "pgd", "norm": "l3"}, "norm: unknown name 'l3'"),
        ({"name": "fgsm", "norm": "l2"}, "must be linf for TorchattacksFGSM; the engine art or own has l2"),
        ({"name": "apgd-ce", "norm": "l1"}, "must be linf or l2 for ApgdCe; the engine own has l1"),
        ({"name": "square", "norm": "l1"}, "must be linf or l2 for Square; the engine own has l1"),
        ({"name": "hop-skip-jump", "norm": "l1"}, "must be linf or l2 for HopSkipJump; no other engine has it either"),
        ({"name": "pgd", "eps": -0.1}, "eps: got -0.1, must be a finite number and not negative"),
        ({"name": "pgd", "eps": 8.0}, r"eps: got 8.0, must be in \[0, 1\] for linf"),
        ({"name": "pgd", "eps": float("nan")}, "eps: got nan"),
        ({"name": "pgd", "steps": 0}, "steps: got 0, must be a whole number of at least 1"),
        ({"name": "pgd", "steps": 2.5}, "steps: got 2.5"),
        ({"name": "pgd", "alpha": 0.0}, "alpha: got 0.0, must be a step size above 0"),
        ({"name": "pgd", "restarts": 0}, "restarts: got 0"),
        ({"name": "pgd", "seed": -1}, "seed: got -1"),
        ({"name": "pgd", "batch_size": 0}, "batch_size: got 0"),
        ({"name": "hybrid", "queries": 0}, "queries: got 0"),
        ({"name": "multi-target", "deepen": 2}, "parameter of multi-target: unknown name 'deepen'"),
        ({"name": "apgd-ce", "with_rejection": True}, "parameter of apgd-ce: unknown name 'with_rejection'"),
        ({"name": "square-rejecting", "with_rejection": False}, "unknown name 'with_rejection'"),
        ({"name": "hybrid", "search_fraction": 1.5}, r"search_fraction: got 1.5, must be a share in \(0, 1\]"),
        ({"name": "hybrid", "search_fraction": "all"}, "search_fraction: got 'all'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_argument_is_an_input_error(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(attacks.InputError, match=message):
        attacks.load(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", attacks.CATALOGUE)
def test_the_classes_are_exported_and_make_the_attacks_of_the_catalogue(name: str, norm: str) -> None:
    engines = attacks.engines_with_norm(name, norm)
    assert norm == "l1" or [*attacks.CATALOGUE[name].engines][name == "fgsm" and norm == "l2" :] == engines
    for engine in engines:
        loaded = attacks.load(name, engine, norm=norm, eps=0.5)
        made = getattr(attacks, type(loaded).__name__)(norm=norm, eps=0.5, **attacks.CATALOGUE[name].fixed)
        assert repr(made) == repr(loaded)
        assert made.name == loaded.name == name


def test_every_exported_name_exists_and_none_is_that_of_a_module() -> None:
    modules = {path.stem for path in Path(attacks.__file__).parent.iterdir()}
    assert not modules & set(attacks.__all__)
    assert all(getattr(attacks, name) is not None for name in attacks.__all__)
    assert set(attacks.__all__) <= set(dir(attacks))


@pytest.mark.parametrize("name", [name for name in attacks.CATALOGUE if name.endswith("-rejecting")])
def test_the_same_class_attacks_the_logits_and_the_decision_with_rejection(name: str) -> None:
    rejecting, plain = attacks.load(name), attacks.load(name.removesuffix("-rejecting"))
    assert type(rejecting) is type(plain)
    assert (rejecting.name, rejecting.knows_detector) == (name, True)
    assert (plain.name, plain.knows_detector) == (name.removesuffix("-rejecting"), False)


def test_whether_an_attack_has_a_parameter_is_known_without_making_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks.MultiTarget, "__post_init__", lambda self: pytest.fail("the attack was made"))
    assert attacks.has_parameter("multi-target", "steps")
    assert not attacks.has_parameter("multi-target", "queries")
    assert not attacks.has_parameter("square-rejecting", "with_rejection")
    with pytest.raises(attacks.InputError, match="attack: unknown name 'multi-traget'"):
        attacks.has_parameter("multi-traget", "steps")


def test_old_parameters_get_their_names_of_today() -> None:
    old = {"deepen": 4, "searched": 0.5, "targets": 2}
    current = attacks.current_parameters(old)
    assert current == {"extra_restarts": 4, "search_fraction": 0.5, "targets": 2}
    assert attacks.current_parameters(current) == current
    assert old == {"deepen": 4, "searched": 0.5, "targets": 2}
    attacks.load("hybrid", **current)
    assert set(attacks.RENAMED_PARAMETERS) == {"deepen", "searched"}
    with pytest.raises(attacks.InputError, match="got deepen and extra_restarts"):
        attacks.current_parameters({"deepen": 1, "extra_restarts": 1})
