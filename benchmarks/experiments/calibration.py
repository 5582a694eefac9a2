"""A net trained until it is too sure, and one temperature, fitted on 600 digits of its own: NLL and calibration errors before and after."""

from __future__ import annotations

import torch
from common import Plan, digits, fit, over_seeds, predict, small_model, table

from pycls import Task
from pycls.calibration import fit_temperature, summary
from pycls.thresholds import risk_coverage

TRAIN, VALIDATION, STEPS = 300, 600, 300
TASKS = {
    "CE": Task("digit", "multiclass", 10),  # type: ignore[arg-type]
    "label smoothing .1": Task("digit", "multiclass", 10, options={"label_smoothing": 0.1}),  # type: ignore[arg-type]
    "focal, gamma 2": Task("digit", "multiclass", 10, loss="focal"),  # type: ignore[arg-type]
}


def run(seed: int) -> dict[str, dict[str, float]]:
    x, digit = digits()
    train, validation, test = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).tensor_split([TRAIN, TRAIN + VALIDATION])
    found = {}
    for name, task in TASKS.items():
        torch.manual_seed(seed)
        model = fit(small_model([task]), x[train], {"digit": digit[train]}, {}, Plan(STEPS), seed)
        fitted_on, logits = (predict(model, x[part])["digit"].double() for part in (validation, test))
        temperature = fit_temperature(task, fitted_on, digit[validation])
        found[name] = figures(task, logits, digit[test], 1.0)
        found[f"{name}, with a temperature"] = figures(task, logits / temperature, digit[test], float(temperature))
        if not (logits / temperature).argmax(1).equal(logits.argmax(1)):
            raise SystemExit("a temperature changed a decision")
    return found


def figures(task: Task, logits: torch.Tensor, target: torch.Tensor, temperature: float) -> dict[str, float]:
    confidence, predicted = task.probabilities(logits).max(1)
    curve = risk_coverage(confidence, (predicted == target).double())
    errors = summary(task, logits, target)
    return {
        "accuracy": float((predicted == target).double().mean()),
        **{name: errors[name] for name in ("NLL", "ECE", "adaptive_ECE", "Brier")},
        "risk at 90 % coverage": float(curve.risk[int(0.9 * len(curve.risk)) - 1]),
        "temperature": temperature,
    }


def main() -> None:
    torch.set_num_threads(1)
    table(f"{TRAIN} digits to learn from, {VALIDATION} for the temperature; no decision is changed by it", over_seeds(run), "CE", "NLL", less=True)


if __name__ == "__main__":
    main()
