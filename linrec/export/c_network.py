"""The step of a module as C99: a traced graph, written operation by operation."""

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from linrec.export.c_arrays import Array, Program
from linrec.export.c_operations import ELEMENTWISE, FILLED, OPERATIONS, SAME, VIEWS, elementwise
from linrec.export.c_source import TYPES, check_name, indent, write_header
from linrec.export.forms import Form, example_of, running
from linrec.export.program import drop_unused, quietly, refuse

COMMENT = """\
/* {name}.h: one step of a {kind}, written by linrec.

   {states} numbers of state, {inputs} of input, {outputs} of output. Nothing is allocated, and
   nothing is global. The state is yours: {name}_init sets it to zero, {name}_step takes one input
   and gives one output, which must not overlap it. Link with the mathematical library (-lm).

       {name}_t network;
       {name}_init(&network);
       {name}_step(&network, input, output); */
"""

STEP = """
static inline void {name}_step({name}_t *self, const {input_type} *input, {type} *output)
{{
    {type} *state = self->state;
{constants}
{statements}
    (void)input, (void)state; /* of which a module may use neither */
}}
"""


def network_to_c(
    module: nn.Module,
    name: str = "network",
    *,
    example: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write the step of a module as a header of C99; arguments and result as in `to_c`."""
    check_name(name)
    if dtype not in TYPES:
        raise ValueError(f"`dtype` is {dtype}: expected torch.float32 or torch.float64.")
    training = module.training
    module.eval()
    try:
        made = example_of(module, Form.STEP, example, 2)
        input, state = (each[:1].contiguous() for each in made.arguments)
        check_start(module, input, state)
        step = made.module

        def trace() -> torch.export.ExportedProgram:
            program = torch.export.export(step, (input, state)).run_decompositions()
            drop_unused(program)
            return program

        with running(made, Form.STEP, 2), torch.no_grad(), quietly():
            program = refuse(Form.STEP, module, trace)
            outputs = step(input, state)[0]
        written = write_graph(program, module, dtype)
    finally:
        module.train(training)
    type_, ending = TYPES[dtype]
    return write_header(
        COMMENT,
        STEP,
        name,
        includes="#include <math.h>\n",
        kind=type(module).__name__,
        type=type_,
        input_type=type_ if input.is_floating_point() else "int",
        zero=f"0.0{ending}",
        states=state.numel(),
        inputs=input.numel(),
        outputs=outputs.numel(),
        constants=indent("\n".join(written.constants), 1),
        statements=indent("\n".join(written.statements), 1),
    )


def check_start(module: nn.Module, input: Tensor, state: Tensor) -> None:
    """Refuse a module whose first state is not zeros, or whose numbers are complex."""
    if state.is_complex() or input.is_complex() or not state.is_floating_point():
        raise ValueError(
            f"`{type(module).__name__}` has a state of {state.dtype}: C is written for real "
            "numbers. Type the format `onnx` or `torch`."
        )
    with torch.no_grad():
        first = module.step(input, None)  # type: ignore[operator]  # a method
        zeros = module.step(input, torch.zeros_like(state))  # type: ignore[operator]  # a method
    if not all(torch.equal(one, other) for one, other in zip(first, zeros, strict=True)):
        raise ValueError(
            f"The state of `{type(module).__name__}` does not begin as zeros, which "
            "`NAME_init` writes in C: type the format `onnx` or `torch`."
        )


def write_graph(
    program: torch.export.ExportedProgram, module: nn.Module, dtype: torch.dtype
) -> Program:
    """Write the operations of a graph in C; operations on constants alone are computed."""
    written = Program(dtype)
    inputs = {"input": iter(["input", "state"])}
    known: dict[str, Any] = {}
    signature = program.graph_signature
    held = {**dict(program.state_dict), **dict(program.constants)}
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants

    def look_up(argument: Any) -> Any:
        if isinstance(argument, Node):
            return known[argument.name]
        if isinstance(argument, list | tuple):
            return type(argument)(look_up(each) for each in argument)
        return argument

    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name in names:
                known[node.name] = held[names[node.name]].detach()
            else:
                value = node.meta["val"]
                places = torch.arange(value.numel()).reshape(value.shape)
                known[node.name] = Array(next(inputs["input"]), places, value.dtype)
        elif node.op == "output":
            outputs, after = look_up(node.args[0])
            write_results(written, outputs, after)
        else:
            arguments = look_up(node.args)
            known[node.name] = compute(written, node, arguments, dict(node.kwargs), module)
    return written


def write_results(written: Program, outputs: Any, after: Any) -> None:
    """Copy the results to the caller's arrays, the state last: outputs may be read from it."""
    for name, value in (("output", outputs), ("state", after)):
        value = value if isinstance(value, Array) else written.constant(value)
        if name == "state" and value.name == "state":  # moved within itself
            value = written.elementwise("{0}", [value], torch.empty(value.shape, dtype=value.dtype))
        places = torch.arange(value.places.numel()).reshape(value.shape)
        written.copy(value, Array(name, places, value.dtype))


def has_arrays(argument: Any) -> bool:
    """Return whether an argument depends on the input or the state."""
    if isinstance(argument, list | tuple):
        return any(map(has_arrays, argument))
    return isinstance(argument, Array)


def compute(
    written: Program, node: Node, arguments: Any, options: dict[str, Any], module: nn.Module
) -> Any:
    """Compute a node whose arguments are constants, or write its operation in C."""
    target: Any = node.target
    if not has_arrays(arguments):
        return target(*arguments, **options)
    if target is operator.getitem:
        return arguments[0][arguments[1]]
    if target in SAME:
        return arguments[0]
    if target in VIEWS:
        return view(written, target, arguments, options)
    if target in FILLED:  # depends only on a shape
        like = node.meta["val"]
        return target(torch.empty(like.shape, dtype=like.dtype), *arguments[1:])
    write = OPERATIONS.get(target)
    if write is None and target in ELEMENTWISE:
        return elementwise(written, ELEMENTWISE[target], arguments, node.meta["val"])
    if write is None:
        raise ValueError(
            f"The step of `{type(module).__name__}` has the operation `{target}`, which is not "
            "written in C. Type the format `onnx` or `torch`."
        )
    arrays = [written.constant(each) if isinstance(each, Tensor) else each for each in arguments]
    return write(written, arrays, options, node.meta["val"])


def view(written: Program, target: Any, arguments: Any, options: dict[str, Any]) -> Any:
    """Apply a view to the places of an array; copy the array where no view is possible."""
    array, *rest = arguments
    try:
        places = target(array.places, *rest, **options)
        parts = places if isinstance(places, list | tuple) else [places]
        start = array.places.untyped_storage().data_ptr()
        if any(part.untyped_storage().data_ptr() != start for part in parts):
            raise RuntimeError
    except RuntimeError:
        copied = written.elementwise("{0}", [array], torch.empty(array.shape, dtype=array.dtype))
        places = target(copied.places, *rest, **options)
        array, parts = copied, places if isinstance(places, list | tuple) else [places]
    found = [Array(array.name, part, array.dtype) for part in parts]
    return found if isinstance(places, list | tuple) else found[0]
