"""Loops, branches, tensor arrays."""
from goldens import f, i, np, op, paddle, pir, program


def loop(x):
    n = paddle.full([1], 0, "int64")
    end = paddle.full([1], 3, "int64")
    out = paddle.static.nn.while_loop(lambda n, x: n < end, lambda n, x: [n + 1, x * 2.0 + 1.0], [n, x])
    return out[1]


def branch(x, c):
    return paddle.static.nn.cond(c.sum() > 3.0, lambda: x * 2.0, lambda: x - 1.0)


def nested(x):
    def body(n, x):
        y = paddle.static.nn.cond(paddle.equal(n % 2, paddle.zeros([1], "int64")).all(), lambda: x + 1.0, lambda: x * 3.0)
        return [n + 1, y]
    n = paddle.full([1], 0, "int64")
    return paddle.static.nn.while_loop(lambda n, x: n < 4, body, [n, x])[1]


def arrays(x, y):
    k = paddle.zeros([1], "int64")
    a = paddle.tensor.array_write(x, k)
    a = paddle.tensor.array_write(y, k + 1, a)
    return [paddle.tensor.array_read(a, k + 1), paddle.tensor.array_length(a)]


pir("while", {"x": f(2, 3)}, lambda C, x: loop(x))
pir("if", {"x": f(2, 3), "c": np.ones(4, "float32")}, lambda C, x, c: branch(x, c))
pir("if", {"x": f(2, 3), "c": np.zeros(4, "float32")}, lambda C, x, c: branch(x, c))
pir("while", {"x": f(2, 3)}, lambda C, x: nested(x), tag="nested")
pir("array_write_", {"x": f(2, 3), "y": f(2, 3)}, lambda C, x, y: arrays(x, y))
pir("array_to_tensor", {"x": f(2, 3), "y": f(2, 3)}, lambda C, x, y: stacked(x, y))
pir("print", {"x": f(2, 3)}, lambda C, x: paddle.static.Print(x))
pir("create_array", {"x": f(2, 3)}, lambda C, x: arrays(x, x)[0])
pir("builtin.split", {"x": f(4, 3)}, lambda C, x: C.split_with_num(x, 2, 0)[1])


def stacked(x, y):
    k = paddle.zeros([1], "int64")
    a = paddle.tensor.array_write(x, k)
    a = paddle.tensor.array_write(y, k + 1, a)
    return paddle.tensor.manipulation.tensor_array_to_tensor(a, axis=1, use_stack=True)[0]


program("while", {"x": f(2, 3)}, loop, pir=False, old=True)
program("conditional_block", {"x": f(2, 3), "c": np.ones(4, "float32")}, branch, pir=False, old=True)
program("conditional_block", {"x": f(2, 3), "c": np.zeros(4, "float32")}, branch, pir=False, old=True)
program("write_to_array", {"x": f(2, 3), "y": f(2, 3)}, arrays, pir=False, old=True)
program("tensor_array_to_tensor", {"x": f(2, 3), "y": f(2, 3)}, stacked, pir=False, old=True)
