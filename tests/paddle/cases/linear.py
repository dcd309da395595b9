"""Factors of matrices, views by strides, windows and shares that follow numbers."""
from goldens import composed, f, np, op, paddle, program


def fixed(m, n, *lead):
    """A matrix of full rank."""
    return f(*lead, m, n) + 3 * np.eye(m, n, dtype="float32")


for shape in ((4, 3), (2, 3, 5), (3, 3)):
    for mode in ("reduced", "complete"):
        op("qr", {"X": f(*shape)}, {"mode": mode}, outs="Q R")
op("qr", {"X": f(4, 3)}, {"mode": "r"}, outs="R")
for shape in ((4, 4), (2, 3, 5), (5, 3)):
    op("lu", {"X": f(*shape)}, {"pivots": True}, outs="Out Pivots Infos")
op("lu", {"X": np.zeros((3, 3), "float32")}, {"pivots": True}, outs="Out Pivots Infos")
for shape in ((4, 4), (2, 3, 5), (5, 3)):
    program("lu_unpack", {"x": f(*shape)}, lambda x: list(paddle.linalg.lu_unpack(*paddle.linalg.lu(x))))
for uplo in "LU":
    program("eigh", {"x": f(2, 5, 5)}, lambda x, uplo=uplo: eigen(x, uplo))
    op("eigvalsh", {"X": f(4, 4)}, {"UPLO": uplo, "is_test": True}, outs="Eigenvalues")
for shape in ((4, 4), (5, 3), (2, 3, 6)):
    for full in (False, True):
        program("svd", {"x": f(*shape)}, lambda x, full=full: singular(x, full))
    op("svdvals", {"x": f(*shape)})
flat = np.outer(np.arange(1, 5), [1, 2, 3]).astype("float32")
program("svd", {"x": flat}, lambda x: singular(x, True), tag="flat")
op("matrix_rank", {"X": flat}, {"use_default_tol": True})
op("matrix_rank", {"X": f(2, 4, 3)}, {"use_default_tol": True})
op("matrix_rank", {"X": np.diag([4, 2, 1]).astype("float32")}, {"tol": 1.5, "use_default_tol": False})
op("matrix_rank", {"X": np.diag([4, -2, 1]).astype("float32")}, {"hermitian": True, "tol": 1.5, "use_default_tol": False})
op("matrix_rank", {"X": np.diag([4, 2, 1]).astype("float32"), "TolTensor": np.float32([3.0])}, {"use_default_tol": False})
op("matrix_rank_atol_rtol", {"x": np.diag([4, 2, 1]).astype("float32"), "atol": np.float32([0.5]), "rtol": np.float32([0.3])})
op("matrix_rank_atol_rtol", {"x": np.diag([4, 2, 1]).astype("float32"), "atol": np.float32([1.5])})
program("lstsq", {"x": fixed(5, 3), "y": f(5, 2)}, lambda x, y: list(paddle.linalg.lstsq(x, y, driver="gelsd"))[0])
program("lstsq", {"x": fixed(3, 3, 2), "y": f(2, 3, 2)}, lambda x, y: list(paddle.linalg.lstsq(x, y, driver="gels"))[0])
op("gammaincc", {"x": f(3, 4, lo=0.25, hi=8), "y": f(3, 4, lo=0.25, hi=12)})
op("gammaincc", {"x": np.float32([0.5, 1, 100, 30]), "y": np.float32([0, 3, 90, 45])})
for u in (0.3, 0.7):
    for k in ([0, 0], [2, 3]):
        op("fractional_max_pool2d", {"x": f(2, 2, 7, 9)}, {"output_size": [3, 4], "kernel_size": k, "random_u": u, "return_mask": True}, outs="out mask")
op("fractional_max_pool3d", {"x": f(1, 2, 5, 7, 6)}, {"output_size": [2, 3, 4], "kernel_size": [0, 0, 0], "random_u": 0.4, "return_mask": True}, outs="out mask")
composed("view_shape", {"input": f(4, 6)}, {"dims": [3, -1]}, outs="out", order="input", by=lambda input: input.reshape([3, -1]), says="reshape")
op("view_slice", {"input": f(4, 6)}, {"begin_idx": 1, "end_idx": 3})
composed("as_strided", {"input": f(4, 6)}, {"dims": [3, 2], "stride": [6, 2], "offset": 8}, outs="out", order="input", by=lambda input: paddle.strided_slice(input, [0, 1], [0, 2], [3, 6], [1, 2]), says="elements 2 + 6 i + 2 j")
composed("index_select_strided", {"x": f(4, 6)}, {"index": 2, "axis": 1}, outs="out", order="x", by=lambda x: x[:, 2], says="x[:, 2]")
BITS = f(2, 3)
composed("view_dtype", {"input": BITS}, {"dtype": 2}, outs="out", order="input", by=lambda input: paddle.assign(BITS.view("int32")), says="the same bytes")
op("hinge_loss", {"Logits": f(4, 1), "Labels": np.float32([[0], [1], [1], [0]])})
for k in (0, 1, 2):
    op("identity_loss", {"X": f(2, 3)}, {"reduction": k})


def eigen(x, uplo):
    w, v = paddle.linalg.eigh(x, uplo)
    return [w, (v * w.unsqueeze(-2)) @ v.transpose([0, 2, 1])]


def singular(x, full):
    u, s, vh = paddle.linalg.svd(x, full_matrices=full)
    k = s.shape[-1]
    back = (u[..., :k] * s.unsqueeze(-2)) @ vh[..., :k, :]
    swap = list(range(len(x.shape) - 2)) + [len(x.shape) - 1, len(x.shape) - 2]
    return [s, back, u.transpose(swap) @ u, vh @ vh.transpose(swap)]
