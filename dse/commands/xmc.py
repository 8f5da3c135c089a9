"""``dse xmc``: extreme multi-label trees - train, predict, bench, prune, inspect, serve."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command group to the command line."""
    group = subparsers.add_parser(
        "xmc",
        help="train, query, measure, prune and serve extreme multi-label trees",
        description="Trees of sparse linear models (XR-Linear) that find the best of up to millions of labels for a text. Folders that "
        "PECOS wrote are read too.",
        allow_abbrev=False,
    )
    commands = group.add_subparsers(dest="xmc_command", metavar="COMMAND", required=True)
    _register_train(commands)
    _register_predict(commands)
    _register_bench(commands)
    _register_prune(commands)
    inspect = _parser(commands, "inspect", "say what a model folder holds", run_inspect)
    inspect.add_argument("model", metavar="MODEL", help="folder or .xmc file")
    _register_serve(commands)


def _parser(commands: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    if name != "serve":
        parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)
    return parser


def _register_train(commands: Any) -> None:
    train = _parser(commands, "train", "train a tree and write its folder", run_train)
    train.add_argument("--data", required=True, metavar="NAME|PATH", help="wordnet-hypernyms or -lemmas; FILE.tsv (labels, tab, text); "
                       "FILE.txt (Extreme Classification repository); a folder with X.trn.npz and Y.trn.npz")  # fmt: skip
    train.add_argument("--out", required=True, metavar="FOLDER", help="the folder to write")
    train.add_argument("--test-documents", type=int, default=0, metavar="N", help="hold N documents back and measure on them")
    train.add_argument("--word-ngrams", type=int, nargs=2, default=(1, 2), metavar=("LOW", "HIGH"), help="default 1 2; 0 0 for none")
    train.add_argument("--char-ngrams", type=int, nargs=2, default=(0, 0), metavar=("LOW", "HIGH"), help="default none")
    train.add_argument("--min-df", type=int, default=2, metavar="N", help="drop terms in fewer documents (default 2)")
    train.add_argument("--no-sublinear", action="store_true", help="counts of terms instead of 1 + log")
    train.add_argument("--branch", type=int, default=16, metavar="N", help="children of a node, a power of two (default 16)")
    train.add_argument("--leaf", type=int, default=100, metavar="N", help="labels of a cluster at most (default 100)")
    train.add_argument("--frequent", type=int, default=100, metavar="N", help="the N labels of most documents, a tenth of all at most, "
                       "share a cluster of their own (default 100; 0: none)")  # fmt: skip
    train.add_argument("--threshold", type=float, default=0.1, metavar="W", help="drop smaller weights (default 0.1)")
    train.add_argument("--penalty", type=float, default=1.0, metavar="C", help="liblinear's C (default 1)")
    train.add_argument("--bias", type=float, default=1.0, metavar="B", help="constant feature (default 1; 0: none)")
    train.add_argument("--negatives", default="tfn", metavar="SCHEME", help="tfn (siblings) or tfn+man (and the matcher's beam)")
    train.add_argument("--post-processor", default="l4-hinge", metavar="NAME", help="what makes a score of a margin (default l4-hinge; "
                       "PECOS's own is l3-hinge)")  # fmt: skip
    train.add_argument("--weights", default="float32", metavar="FORMAT", help="of tree.xmc: float32, float16 or int8")
    train.add_argument("--seed", type=int, default=0)


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--beam", type=int, default=10, help="nodes kept at each level (default 10)")
    parser.add_argument("--topk", type=int, default=100, help="labels that come out (default 100)")
    parser.add_argument("--threads", type=int, default=1)


def _register_predict(commands: Any) -> None:
    predict = _parser(commands, "predict", "answer queries as JSON lines", run_predict)
    predict.add_argument("model", metavar="MODEL", help="folder or .xmc file")
    predict.add_argument("input", metavar="INPUT", help="text, one query a line (- for standard input), or FILE.npz with a sparse matrix")
    predict.add_argument("--out", metavar="FILE.jsonl", help="write there instead of standard output")
    predict.add_argument("--post-processor", metavar="NAME", help="noop, sigmoid, log-sigmoid, l<P>-hinge, log-l<P>-hinge")
    _add_search(predict)


def _register_bench(commands: Any) -> None:
    bench = _parser(commands, "bench", "measure times, counts and, with labelled data, quality", run_bench)
    bench.add_argument("model", nargs="?", metavar="MODEL", help="folder or .xmc file")
    bench.add_argument("--synthetic", type=int, metavar="LABELS", help="a generated tree of that many labels instead of a model")
    bench.add_argument("--queries", metavar="FILE.npz", help="a sparse matrix of queries (default: generated, or those of --data)")
    bench.add_argument("--data", metavar="NAME|PATH", help="labelled documents: recall and precision are measured on them")
    bench.add_argument("--documents", type=int, default=2000, metavar="N", help="documents of --data, or generated queries (default 2000)")
    bench.add_argument("--weights", default="float32", metavar="FORMAT", help="of a generated tree")
    bench.add_argument("--seed", type=int, default=0)
    _add_search(bench)


def _register_prune(commands: Any) -> None:
    prune = _parser(commands, "prune", "drop small weights, or show what thresholds would do", run_prune)
    prune.add_argument("model", metavar="MODEL", help="folder with a ranker")
    prune.add_argument("--threshold", type=float, action="append", required=True, metavar="W", help="drop weights below (repeatable)")
    prune.add_argument("--out", metavar="FOLDER", help="write the pruned model (one threshold)")
    prune.add_argument("--data", metavar="NAME|PATH", help="labelled documents: a table of threshold, recall, size and time")
    prune.add_argument("--documents", type=int, default=2000, metavar="N", help="documents of --data (default 2000)")
    prune.add_argument("--weights", default="float32", metavar="FORMAT", help="float32, float16 or int8")
    prune.add_argument("--seed", type=int, default=0)
    _add_search(prune)


def _register_serve(commands: Any) -> None:
    serve = _parser(commands, "serve", "answer HTTP on this machine: POST /predict, GET /metrics", run_serve)
    serve.add_argument("model", metavar="MODEL", help="folder or .xmc file")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8800, help="default 8800; 0: any free one")
    serve.add_argument("--bound-ms", type=float, default=10.0, metavar="MS", help="latency that batches must stay under (default 10)")
    serve.add_argument("--max-batch", type=int, default=256, metavar="N", help="queries of a batch at most (default 256)")
    _add_search(serve)


def _tell(text: str) -> None:
    import sys

    print(text, file=sys.stderr)


def _print(record: Any, as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps(record, indent=2, allow_nan=False))
        return
    for name, value in record.items():
        if isinstance(value, dict):
            print(name)
            for inner, number in value.items():
                print(f"  {inner:<18} {_shown(number)}")
        else:
            print(f"{name:<20} {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def run_train(args: argparse.Namespace) -> int:
    """Train and write the folder."""
    from dse.errors import UsageError
    from workloads.xmc import data, folder, text, training
    from workloads.xmc.errors import XmcError

    words, characters = tuple(args.word_ngrams), tuple(args.char_ngrams)
    names = ("branch", "leaf", "frequent", "threshold", "penalty", "bias", "negatives", "post_processor", "seed")
    try:
        text_settings = text.TextSettings(words, characters, args.min_df, not args.no_sublinear)
        settings = training.TrainSettings(**{name: getattr(args, name) for name in names})
    except XmcError as error:
        raise UsageError(str(error)) from None
    documents = data.read(args.data)
    test = None
    if args.test_documents:
        documents, test = data.split(documents, args.test_documents, args.seed)
    record = folder.train_folder(documents, test, Path(args.out), text_settings, settings, args.weights, ["dse", "xmc", *args.words], _tell)
    _print({"folder": args.out, **record} if args.json else {"folder": args.out, **record.get("test", {})}, args.json)
    return 0


def _queries_of(model: Any, source: str) -> Any:
    import sys

    from workloads.xmc import data
    from workloads.xmc.errors import XmcError

    if source.endswith(".npz"):
        queries = data.read_queries(Path(source))
        if queries.shape[1] != model.tree.features:
            raise XmcError(f"{source}: {queries.shape[1]} features, the tree has {model.tree.features}")
        return queries
    if source == "-":
        lines = sys.stdin.read().splitlines()
    else:
        try:
            lines = Path(source).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise XmcError(f"{source}: is not UTF-8 text; a sparse matrix ends in .npz") from None
    return model.features_of(lines)


def run_predict(args: argparse.Namespace) -> int:
    """Answer queries, a JSON object a line: {"labels": [...], "scores": [...]}."""
    import contextlib
    import json
    import sys

    from dse_kernels.xmc import check_post_processor

    from workloads.xmc import folder

    if args.post_processor is not None:
        _checked(lambda: check_post_processor(args.post_processor))
    model = folder.open_model(args.model)
    queries = _queries_of(model, args.input)
    labels, scores = _checked(lambda: model.tree.predict(queries, args.beam, args.topk, args.threads, args.post_processor))
    with open(args.out, "w", encoding="utf-8") if args.out else contextlib.nullcontext(sys.stdout) as stream:
        for found, with_scores in zip(labels, scores, strict=True):
            kept = found >= 0
            answer = {"labels": [model.name_of(int(i)) for i in found[kept]], "scores": [float(s) for s in with_scores[kept]]}
            print(json.dumps(answer), file=stream)
    return 0


def _checked(call: Any) -> Any:
    """The kernel's own errors as this program's."""
    from dse_kernels.xmc import ModelError

    from workloads.xmc.errors import XmcError

    try:
        return call()
    except ModelError as error:
        raise XmcError(str(error)) from None


def _labelled(args: argparse.Namespace) -> Any:
    from workloads.xmc import data

    documents = data.read(args.data, "test")
    return data.split(documents, args.documents, args.seed)[1] if 0 < args.documents < documents.count else documents


def run_bench(args: argparse.Namespace) -> int:
    """Measure a model, or a generated tree."""
    from dse_kernels import xmc

    from dse.errors import UsageError
    from workloads.xmc import data, folder, generator, quality, timing
    from workloads.xmc.errors import XmcError

    if (args.model is None) == (args.synthetic is None):
        raise UsageError("bench needs a MODEL or --synthetic LABELS, one of them")
    if args.documents < 1:
        raise UsageError(f"documents {args.documents} is not positive")
    truth = None
    if args.synthetic is not None:
        try:
            shape = generator.Shape(args.synthetic, seed=args.seed)
        except ValueError as error:
            raise XmcError(str(error)) from None
        tree = _checked(lambda: xmc.build(generator.ranker(shape), args.weights))
        queries = generator.queries(shape, args.documents)
    else:
        model = folder.open_model(args.model)
        tree = model.tree
        if args.data:
            documents = _labelled(args)
            queries, truth = folder.test_features(model, documents), documents.labels
        elif args.queries:
            queries = data.read_queries(Path(args.queries))
        else:
            raise UsageError("bench of a model needs --queries FILE.npz or --data")
    record = _checked(lambda: timing.bench(tree, queries, args.beam, args.topk, args.threads))
    if truth is not None:
        record["quality"] = quality.measures(tree.predict(queries, args.beam, args.topk)[0], truth)
    _print(record, args.json)
    return 0


def run_prune(args: argparse.Namespace) -> int:
    """Write a pruned folder, or print a table of thresholds."""
    from dse_kernels import xmc

    from dse.errors import UsageError
    from workloads.xmc import folder, quality, timing, training

    if args.out:
        if len(args.threshold) != 1:
            raise UsageError(f"prune --out needs one threshold, got {len(args.threshold)}")
        record = folder.prune_folder(Path(args.model), Path(args.out), args.threshold[0], args.weights, ["dse", "xmc", *args.words])
        _print(record, args.json)
        return 0
    if not args.data:
        raise UsageError("prune needs --out FOLDER, or --data for a table of thresholds")
    model, ranker, documents = folder.open_model(args.model), folder.read_ranker(args.model), _labelled(args)
    queries = folder.test_features(model, documents)
    rows = []
    for threshold in args.threshold:
        tree = _checked(lambda t=threshold: xmc.build(training.prune(ranker, t), args.weights))
        measured = timing.bench(tree, queries, args.beam, args.topk, args.threads)
        found = quality.measures(tree.predict(queries, args.beam, args.topk)[0], documents.labels)
        stored = sum(level["nonzeros"] for level in tree.level_table())
        kept = {name: measured[name] for name in ("bytes", "batch_cpu_ms", "online_p50_us")}
        rows.append({"threshold": threshold, "weights": stored, **kept, "macs": measured["counts"]["macs"], **found})
    if args.json:
        import json

        print(json.dumps(rows, indent=2))
        return 0
    shown = ("threshold", "weights", "bytes", "batch_cpu_ms", "online_p50_us", "macs", "precision@1", *([f"recall@{args.topk}"]))
    print("  ".join(f"{name:>14}" for name in shown))
    for row in rows:
        print("  ".join(f"{_shown(row[name]) if name in row else '-':>14}" for name in shown))
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """Say what a folder holds."""
    from workloads.xmc import folder

    model = folder.open_model(args.model)
    tree = model.tree
    record: dict[str, Any] = {
        "model": str(model.path),
        "labels": tree.labels,
        "features": tree.features,
        "weights": tree.weights,
        "bytes": tree.nbytes,
        "text": model.vectorizer is not None,
        "named_labels": model.names is not None,
        "levels": tree.level_table(),
        "record": model.record,
    }
    if args.json:
        _print(record, True)
        return 0
    levels = record.pop("levels")
    _print(record, False)
    for depth, level in enumerate(levels):
        counts = f"{level['nodes']:>11,} nodes {level['chunks']:>9,} chunks {level['nonzeros']:>13,} weights {level['bytes']:>15,} bytes"
        print(f"level {depth}  {counts}  {level['post_processor']}, bias {level['bias']:g}, keeps {level['only_topk']}")
    return 0


def run_serve(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; what was accepted is answered first."""
    from dse.errors import UsageError
    from workloads.xmc import folder, service

    if not args.bound_ms > 0 or args.max_batch < 1:
        raise UsageError(f"bound-ms {args.bound_ms:g} or max-batch {args.max_batch} is not positive")
    if not 0 <= args.port <= 65_535:
        raise UsageError(f"port {args.port} is not in 0..65535")
    settings = service.Settings(args.host, args.port, args.bound_ms / 1e3, args.max_batch, args.beam, args.topk, args.threads)
    return service.serve(folder.open_model(args.model), settings, _tell)
