"""`dse quality`: published benchmarks' metrics from a model's own answers."""

from __future__ import annotations

import argparse


def register(subparsers: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    """Add the command group to the command line."""
    group = subparsers.add_parser(
        "quality",
        help="score a model's own answers (NaturalBench, CameraBench)",
        description="Compute the metrics of an evaluation suite from a JSON-lines file of a model's answers.",
        allow_abbrev=False,
    )
    suites = group.add_subparsers(dest="suite", metavar="SUITE", required=True)
    forms = {
        "naturalbench": (
            run_naturalbench,
            'lines {"q0_i0": "Yes", "q0_i1": "No", "q1_i0": "No", "q1_i1": "Yes"} or '
            '{"group": 1, "question": 0, "image": 1, "answer": "No"}; "type": "multiple_choice" for A or B',
        ),
        "camerabench": (run_camerabench, 'lines {"label": "pan left", "score": 0.83, "positive": true}'),
    }
    for name, (run, form) in forms.items():
        suite = suites.add_parser(name, help=form, description=f"Each line of the file is a JSON object: {form}.", allow_abbrev=False)
        suite.add_argument("answers", metavar="ANSWERS.jsonl", help="the answers, one JSON object a line")
        suite.add_argument("--json", action="store_true", help="print JSON on stdout")
        suite.set_defaults(run=run)


def run_naturalbench(args: argparse.Namespace) -> int:
    """Print the four accuracies of NaturalBench with their standard errors."""
    import dataclasses
    from pathlib import Path

    from workloads import jsonl
    from workloads.metrics import naturalbench

    scores = naturalbench.score_records(jsonl.read_lines(Path(args.answers)), args.answers)
    errors = scores.standard_errors()
    if args.json:
        _print_json(dataclasses.asdict(scores) | {f"{name}_se": value for name, value in errors.items()})
        return 0
    print(f"NaturalBench, {scores.groups} groups of 2 images x 2 questions ({scores.unreadable} answers not readable)")
    chance = {"accuracy": 50.0, "question_accuracy": 25.0, "image_accuracy": 25.0, "group_accuracy": 6.25}
    for name, by_chance in chance.items():
        value = getattr(scores, name)
        print(f"  {name:<18} {100 * value:6.2f} %  +- {100 * errors[name]:.2f}  (chance {by_chance:g} %)")
    return 0


def run_camerabench(args: argparse.Namespace) -> int:
    """Print the mean average precision of CameraBench, of every label, and the accuracy over pairs."""
    import dataclasses
    from pathlib import Path

    from workloads import jsonl
    from workloads.metrics import camerabench

    scores = camerabench.score_records(jsonl.read_lines(Path(args.answers)), args.answers)
    if args.json:
        _print_json(dataclasses.asdict(scores))
        return 0
    print(f"CameraBench, {scores.answers} scores of {scores.labels} labels")
    print(f"  average precision  {100 * scores.average_precision:6.2f} %")
    if scores.pair_accuracy is not None:
        print(f"  pair accuracy      {100 * scores.pair_accuracy:6.2f} %")
    for label, value in scores.by_label.items():
        print(f"    {100 * value:6.2f} %  {label}")
    return 0


def _print_json(record: dict[str, object]) -> None:
    import json

    print(json.dumps(record, indent=2, allow_nan=False))
