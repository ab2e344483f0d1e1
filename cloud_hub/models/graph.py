"""Write a fitted blend as one ONNX graph: trees, nets, their mean, conformal offsets and the no-crossing sort.

What a van runs is then one file that needs nothing else. Trees use the `TreeEnsemble` operator of ai.onnx.ml 5, a third
of the size of the older `TreeEnsembleRegressor`.
"""

import hashlib
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # It ships no types.
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cloud_hub.models.calibrate import LEVELS
from cloud_hub.models.nets import FARTHEST, LEAK
from cloud_hub.models.train import Blend

INPUT, OUTPUT = "rows", "quantiles_s"
MOST_DIFFERENCE = 1e-3
"""The most a graph may differ from Python on any row, in the unit of its gate (see `check_fidelity`)."""


class GraphUnfaithful(ValueError):
    """The ONNX graph does not compute what Python computes."""


def graph_of(blend: Blend, about: dict[str, str] | None = None) -> bytes:
    """The blend as a serialized ONNX model: float32[n, k] `rows` to float32[n, 3] `quantiles_s`, P10 <= P50 <= P90.

    Metadata names the columns in order, so that a runtime can refuse rows of other columns; `about` adds more.
    """
    drawn = _Drawing()
    rows = INPUT
    trees = drawn.add("TreeEnsemble", [_picked(drawn, rows, blend, blend.recipe.tree_columns)], **_trees_of(blend))
    nets = _nets_of(drawn, _picked(drawn, rows, blend, blend.recipe.net_columns), blend)
    share = drawn.constant(np.float32(blend.net_share))
    rest = drawn.constant(np.float32(1 - blend.net_share))
    blended = drawn.add("Add", [drawn.add("Mul", [trees, rest]), drawn.add("Mul", [nets, share])])
    moved = drawn.add(
        "Add", [blended, drawn.constant(np.array(blend.offsets, dtype=np.float32) + np.float32(blend.base_log))]
    )
    three = drawn.constant(np.array([len(LEVELS)], dtype=np.int64))
    ordered = drawn.add("TopK", [moved, three], outputs=2, axis=1, largest=0, sorted=1)
    factor = drawn.add("Exp", [ordered])
    if blend.recipe.baseline is None:
        drawn.add("Identity", [factor], named=OUTPUT)
    else:
        drawn.add("Mul", [factor, _picked(drawn, rows, blend, (blend.recipe.baseline,))], named=OUTPUT)
    graph = helper.make_graph(
        drawn.nodes,
        "durations",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, len(blend.recipe.columns)])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, len(LEVELS)])],
        drawn.constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 5)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="waywarden", ir_version=9)
    helper.set_model_props(model, {"columns": json.dumps(blend.recipe.columns), **(about or {})})
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def sha256_of(graph: bytes) -> str:
    """The name of a model file by its content, as 64 hex digits."""
    return hashlib.sha256(graph).hexdigest()


def graph_predict(graph: bytes, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the graph itself answers, float32[n, 3] seconds, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(None, {INPUT: rows})[0]
    return answer


def check_fidelity(blend: Blend, graph: bytes, rows: NDArray[np.float32], unit_s: float = 60.0) -> float:
    """The most the graph differs from Python on any row, in units of `unit_s` seconds (minutes unless told).

    Raises GraphUnfaithful above MOST_DIFFERENCE, naming the row.
    """
    differences = np.abs(graph_predict(graph, rows) - blend.predict(rows)).max(axis=1) / unit_s
    worst = int(differences.argmax())
    if not differences[worst] <= MOST_DIFFERENCE:
        raise GraphUnfaithful(
            f"row {worst} differs by {differences[worst]:.3g}, expected at most {MOST_DIFFERENCE:g}: "
            "do not ship this graph; check the tree thresholds"
        )
    return float(differences[worst])


class _Drawing:
    """Nodes and constants of a graph under construction, named as they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, content: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(content), name))
        return name

    def add(self, operator: str, inputs: list[str], named: str = "", outputs: int = 1, **attributes: Any) -> str:
        name = named or f"n{len(self.nodes)}"
        names = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        domain = "ai.onnx.ml" if operator == "TreeEnsemble" else ""
        self.nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return name


def _picked(drawn: _Drawing, rows: str, blend: Blend, wanted: tuple[str, ...]) -> str:
    if wanted == blend.recipe.columns:
        return rows
    indices = np.array([blend.recipe.columns.index(name) for name in wanted], dtype=np.int64)
    return drawn.add("Gather", [rows, drawn.constant(indices)], axis=1)


def _nets_of(drawn: _Drawing, rows: str, blend: Blend) -> str:
    nets = blend.nets
    signal = drawn.add("Sub", [rows, drawn.constant(nets.centre.astype(np.float32))])
    signal = drawn.add("Mul", [signal, drawn.constant(nets.inverse_scale.astype(np.float32))])
    edges = [drawn.constant(np.float32(-FARTHEST)), drawn.constant(np.float32(FARTHEST))]
    signal = drawn.add("Clip", [signal, *edges])
    for layer, (weight, bias) in enumerate(zip(nets.weights, nets.biases, strict=True)):
        signal = drawn.add("MatMul", [signal, drawn.constant(weight.astype(np.float32))])
        signal = drawn.add("Add", [signal, drawn.constant(bias.astype(np.float32))])
        if layer < len(nets.weights) - 1:
            signal = drawn.add("LeakyRelu", [signal], alpha=LEAK)
    return drawn.add("ReduceMean", [signal], axes=[0], keepdims=0)


def _trees_of(blend: Blend) -> dict[str, Any]:
    """The attributes of one TreeEnsemble with a target for each level (ONNX ai.onnx.ml 5)."""
    forest = _Forest()
    for boosters in blend.forests:
        for target, booster in enumerate(boosters):
            for tree in booster.dump_model()["tree_info"]:
                forest.plant(tree["tree_structure"], target)
    return {
        "aggregate_function": 1,  # SUM
        "post_transform": 0,  # NONE
        "n_targets": len(LEVELS),
        "tree_roots": forest.roots,
        "nodes_featureids": forest.feature,
        "nodes_splits": numpy_helper.from_array(np.array(forest.split, dtype=np.float32)),
        "nodes_modes": numpy_helper.from_array(np.zeros(len(forest.feature), dtype=np.uint8)),  # BRANCH_LEQ
        "nodes_truenodeids": forest.true_id,
        "nodes_trueleafs": forest.true_is_leaf,
        "nodes_falsenodeids": forest.false_id,
        "nodes_falseleafs": forest.false_is_leaf,
        "leaf_targetids": forest.leaf_target,
        "leaf_weights": numpy_helper.from_array((np.array(forest.leaf_weight) / len(blend.forests)).astype(np.float32)),
    }


class _Forest:
    """Trees laid out node by node, as the operator wants them."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.feature: list[int] = []
        self.split: list[np.float32] = []
        self.true_id: list[int] = []
        self.true_is_leaf: list[int] = []
        self.false_id: list[int] = []
        self.false_is_leaf: list[int] = []
        self.leaf_target: list[int] = []
        self.leaf_weight: list[float] = []

    def plant(self, root: dict[str, Any], target: int) -> None:
        self.roots.append(len(self.feature))
        if "leaf_value" in root:
            # A tree that never split: a node whose two sides are the same leaf.
            leaf = self._leaf(root, target)
            self._node(0, np.float32(0))
            self._sides(len(self.feature) - 1, (leaf, 1), (leaf, 1))
        else:
            self._branch(root, target)

    def _branch(self, node: dict[str, Any], target: int) -> tuple[int, int]:
        if "leaf_value" in node:
            return self._leaf(node, target), 1
        if node["decision_type"] != "<=":
            raise GraphUnfaithful(f"a split is '{node['decision_type']}', expected '<=': use no categorical columns")
        own = len(self.feature)
        self._node(node["split_feature"], _rounded_down(node["threshold"]))
        self._sides(own, self._branch(node["left_child"], target), self._branch(node["right_child"], target))
        return own, 0

    def _leaf(self, node: dict[str, Any], target: int) -> int:
        self.leaf_target.append(target)
        self.leaf_weight.append(node["leaf_value"])
        return len(self.leaf_weight) - 1

    def _node(self, feature: int, split: np.float32) -> None:
        self.feature.append(feature)
        self.split.append(split)
        for sides in (self.true_id, self.true_is_leaf, self.false_id, self.false_is_leaf):
            sides.append(0)

    def _sides(self, own: int, true: tuple[int, int], false: tuple[int, int]) -> None:
        self.true_id[own], self.true_is_leaf[own] = true
        self.false_id[own], self.false_is_leaf[own] = false


def _rounded_down(threshold: float) -> np.float32:
    # A float32 is <= threshold exactly when it is <= the largest float32 not above it; to nearest would flip rows.
    nearest = np.float32(threshold)
    return nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf))
