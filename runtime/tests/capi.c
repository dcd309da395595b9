/* Opens the bundle given as argument 1 (out = 3 * in over [n, 4] f32) and tries the C interface. */
#include "hub.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int ok, const char *what, int line)
{
    if (!ok) {
        fprintf(stderr, "line %d: %s: %s\n", line, what, hub_last_error());
        exit(1);
    }
}
#define CHECK(x) check((x), #x, __LINE__)

/* Structs of other lengths, and limits. */
static void options(const hub_model *m, const char *path)
{
    struct { hub_session_options o; uint64_t more; } later;
    hub_open_options how;
    hub_model *copy = NULL;
    hub_session *s = NULL;
    hub_tensor in, out;
    float x[4] = {1, 2, 3, 4};

    memset(&how, 0, sizeof how);
    CHECK(hub_model_open_with(path, &how, &copy) == 2 && copy == NULL); /* no size */
    how.struct_size = sizeof how, how.copy = 1;
    CHECK(hub_model_open_with(path, &how, &copy) == 0);
    CHECK(hub_model_verify(copy) == 0);
    hub_model_close(copy);
    CHECK(hub_model_open_with(path, NULL, &copy) == 0);
    hub_model_close(copy);

    CHECK(hub_session_new_with(m, NULL, &s) == 0);
    hub_session_free(s);
    memset(&later, 0, sizeof later);
    later.o.struct_size = sizeof(size_t);
    CHECK(hub_session_new_with(m, &later.o, &s) == 0);
    hub_session_free(s);
    later.o.struct_size = sizeof later;
    CHECK(hub_session_new_with(m, &later.o, &s) == 0);
    hub_session_free(s);
    later.more = 1, s = NULL;
    CHECK(hub_session_new_with(m, &later.o, &s) == 3 && s == NULL);
    later.more = 0, later.o.device = "toaster";
    CHECK(hub_session_new_with(m, &later.o, &s) == 3);
    later.o.device = NULL, later.o.tier = "portable", later.o.threads = 1, later.o.tensor_bytes = 15;
    CHECK(hub_session_new_with(m, &later.o, &s) == 0);
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    in.dtype = 1, in.rank = 2, in.dims[0] = 1, in.dims[1] = 4, in.data = x, in.bytes = sizeof x;
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 9);
    hub_session_free(s);
    later.o.tensor_bytes = 16;
    CHECK(hub_session_new_with(m, &later.o, &s) == 0);
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 0 && ((float *)out.data)[3] == 12);
    hub_session_free(s);
}

int main(int argc, char **argv)
{
    hub_model *m = NULL;
    hub_session *s = NULL;
    hub_tensor spec, in, out;
    const char *name = NULL;
    char raw[1 + 3 * 16];
    float x[12], y[12];
    int i;

    CHECK(argc == 2);
    CHECK(hub_last_error()[0] == 0);
    CHECK(hub_model_open("/nonexistent/bundle", &m) == 8 && m == NULL);
    CHECK(hub_last_error()[0] != 0);
    CHECK(hub_model_open(NULL, &m) == 2);
    CHECK(hub_model_open(argv[0], &m) != 0);
    CHECK(hub_model_open(argv[1], &m) == 0 && m != NULL);
    CHECK(hub_model_verify(m) == 0);
    CHECK(hub_model_verify(NULL) == 2);

    CHECK(hub_model_io(m, 0, 0, &name, &spec) == 0);
    CHECK(strcmp(name, "in0") == 0);
    CHECK(spec.dtype == 1 && spec.rank == 2 && spec.dims[0] == -1 && spec.dims[1] == 4);
    CHECK(spec.data == NULL && spec.bytes == 0);
    CHECK(hub_model_io(m, 1, 0, &name, NULL) == 0 && strcmp(name, "out0") == 0);
    CHECK(hub_model_io(m, 0, 1, &name, &spec) == 2);
    CHECK(hub_model_io(m, 1, 1, &name, &spec) == 2);

    CHECK(hub_session_new(m, "toaster", 1, &s) == 3 && s == NULL);
    options(m, argv[1]);
    CHECK(hub_session_new(m, "cpu", 2, &s) == 0);
    hub_model_close(m); /* the session keeps it */

    for (i = 0; i < 12; i++) x[i] = (float)i - 5;
    memcpy(raw + 1, x, sizeof x); /* unaligned on purpose */
    memset(&in, 0, sizeof in);
    in.dtype = 1, in.rank = 2, in.dims[0] = 3, in.dims[1] = 4;
    in.data = raw + 1, in.bytes = sizeof x;

    /* Session memory. */
    memset(&out, 0, sizeof out);
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 0);
    CHECK(out.data != NULL && out.bytes == sizeof x && out.rank == 2 && out.dtype == 1);
    CHECK(out.dims[0] == 3 && out.dims[1] == 4);
    for (i = 0; i < 12; i++) CHECK(((float *)out.data)[i] == 3 * x[i]);

    /* Memory of the caller. */
    out.data = y, out.bytes = sizeof y;
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 0);
    CHECK(out.data == y && out.bytes == sizeof y);
    for (i = 0; i < 12; i++) CHECK(y[i] == 3 * x[i]);

    /* Too small. */
    memset(y, 0, sizeof y);
    out.bytes = 8, out.dims[0] = 0;
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 2);
    CHECK(out.bytes == sizeof y && out.dims[0] == 3 && out.data == y);
    for (i = 0; i < 12; i++) CHECK(y[i] == 0);

    /* The input's own memory as output. */
    memcpy(y, x, sizeof y);
    in.data = y, out.data = y, out.bytes = sizeof y;
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 0);
    for (i = 0; i < 12; i++) CHECK(y[i] == 3 * x[i]);

    /* Wrong calls. */
    CHECK(hub_session_run(s, &in, 0, &out, 1) == 2);
    CHECK(hub_session_run(s, NULL, 1, &out, 1) == 2);
    CHECK(hub_session_run(NULL, &in, 1, &out, 1) == 2);
    in.data = NULL;
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 2);
    in.data = raw + 1, in.bytes = 47;
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 2);
    in.bytes = 48, in.rank = 9;
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 2);
    in.rank = 2, in.dims[0] = -3;
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 2);
    in.dims[0] = 3, in.dtype = 99;
    CHECK(hub_session_run(s, &in, 1, &out, 1) == 2);

    hub_session_free(s);
    hub_session_free(NULL);
    hub_model_close(NULL);
    puts("ok");
    return 0;
}
