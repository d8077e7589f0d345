"""Reports on stacks: the confidence of slices, the tables, the rule for the stack's pose, and the agreement of real stacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from posepipe.bench import moving_stacks, real_stacks
from posepipe.bench.moving_stacks import FEATURES, fit_slices, limits, report
from posepipe.errors import UsageError
from posepipe.geometry import Rigid


def rows(n: int = 40, seed: int = 0) -> list[dict[str, str]]:
    """Slices of two stacks of each of three brains at two levels; those with little ``ncc`` are wrong."""
    rng, out = np.random.default_rng(seed), []
    for name in ("a", "b", "c"):
        for level in ("small", "large"):
            for trial in range(2):
                for k in range(n // 4):
                    ncc = rng.uniform(0.2, 0.9)
                    wrong = ncc + rng.normal(0, 0.05) < 0.4
                    values = dict.fromkeys(FEATURES, 0.0) | {"ncc": ncc, "degrees": 40.0 if wrong else 2.0, "mm": 1.5, "still": 6.0}
                    stack = {"stack_slices": 1.0, "stack_volume": 3.0, "stack_kept": 1.0, "ncc_slices": 0.4, "ncc_volume": 0.5}
                    values |= stack | {"seconds": 2.0}
                    values["motion"] = 7.0 if level == "large" else 1.0
                    about = {"name": name, "group": "g", "level": level, "trial": trial, "slice": k, "kept": "slices"}
                    about["outlier"] = int(ncc < 0.3)
                    out.append({key: str(v) for key, v in (about | values).items()})
    return out


def test_confidence_falls_with_what_wrong_slices_show():
    some = rows()
    fit = fit_slices(some)
    high, low = (fit.model.probability(dict.fromkeys(FEATURES, 0.0) | {"ncc": ncc}) for ncc in (0.8, 0.25))
    assert high > 0.9 > 0.2 > low
    wrong = np.array([float(r["degrees"]) > 10 for r in some])
    assert fit.held[wrong].mean() < 0.3 < 0.8 < fit.held[~wrong].mean()
    called = np.array([fit.model.probability({k: float(r[k]) for k in FEATURES}) < fit.model.fail for r in some])
    assert called[wrong].mean() > 0.8 and called[~wrong].mean() < 0.1
    assert f"{len(some)} slices of 3 brains" in fit.made and f"{wrong.sum()} of them more than 10 degrees off" in fit.made
    with pytest.raises(UsageError, match="both right and wrong"):
        fit_slices([r for r in some if float(r["degrees"]) < 10])


def test_the_table_has_a_line_for_each_level_and_counts_outliers_by_the_model():
    some = rows()
    plain, judged = report(some, None).splitlines(), report(some, fit_slices(some).model).splitlines()
    assert len(plain) == len(judged) == 6
    cells = [c.strip() for c in plain[4].split("|")[1:-1]]
    assert cells[:3] == ["g", "small (2°)", "6"] and cells[4:6] == ["2.0", "1.5"]
    assert cells[10:14] == ["1.0 (1.0)", "3.0 (3.0)", "1.0 (1.0)", "6 of 6"]
    small = [r for r in some if r["level"] == "small"]
    called, wrong = ([r[k] == v for r in small] for k, v in (("outlier", "1"), ("degrees", "40.0")))
    hits = sum(a and b for a, b in zip(called, wrong, strict=True))
    assert cells[8:10] == [f"{hits} of {sum(called)}", f"{hits} of {sum(wrong)}"]
    assert judged[4] != plain[4]


def test_the_limit_of_motion_decides_which_pose_is_kept():
    text = limits(rows())  # slices are better, fit worse, and move by 1° or 7°
    assert "of 12 stacks" in text and " 0: 1.00 (1.0)" in text and "5: 2.00 (3.0)" in text and "8: 3.00 (3.0)" in text
    assert "slices alone 1.00" in text and "volume alone 3.00" in text


def test_validation_brains_trained_nothing_and_are_not_of_the_test(data_dir: Path):
    names = [c.name for c in moving_stacks.validation_cases(data_dir)]
    assert names == ["sub-A11", "sub-A12", "CRL+27", "FidonSBA+28", "Serag+36", "Serag+41"]


def test_agreement_is_within_and_between_groups():
    poses = [Rigid.from_rotvec([0, 0, np.radians(a)], [0, 0, 0]) for a in (0, 4, 30, 33)]
    groups = real_stacks.groups_of(poses)
    assert groups == [0, 0, 1, 1]
    within, between = real_stacks.agreement(poses, groups)
    assert within == pytest.approx([4, 3]) and between == pytest.approx([30, 33, 26, 29])
    kept = SimpleNamespace(kept="volume", motion=1.25)

    def stack(k: int) -> real_stacks.RealStack:
        found = SimpleNamespace(by_volume=poses[k], by_slices=poses[k], pose=poses[k], kept=kept,
                                about=lambda: {"SlicesWithPose": 9, "Outliers": 1, "SliceOrder": "guessed"})  # fmt: skip
        return real_stacks.RealStack(f"run-{k}", found, (5.0, 20.0), (10.0, 40.0))  # type: ignore[arg-type]

    text = real_stacks.report([stack(k) for k in range(4)])
    assert "| run-2 | 2 | 9 | 1 | 1.2 | 0.0 | volume | guessed |" in text
    assert "| by volume | 3.5 (4.0), 2 pairs | 29.5 (33.0), 4 pairs |" in text and "| as kept |" in text
    assert "| with mask | 8 | 12.5 | 12.5 | 50 % | 0 % |" in text and "| without | 8 | 25.0 | 25.0 | 50 % | 50 % |" in text
