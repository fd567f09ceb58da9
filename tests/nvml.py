"""A fake libnvidia-ml.so.1: a machine with two GPUs, the second with a MIG slice.

It is compiled here and loaded by the real pynvml. Environment variables control it: NVML_GPUS is
the number of GPUs, a variable with the name of a function is the error that this function returns,
and NVML_LOG is a file to which the name of every called function is appended.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

GPU_UUID: Final = "GPU-00000000-0000-0000-0000-000000000001"  # the second GPU
MIG_UUID: Final = "MIG-00000000-0000-0000-0000-000000000001"  # its slice

SOURCE: Final = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };

typedef struct { const char *name; int major, minor, index; unsigned long long total; } Device;
typedef struct { unsigned long long total, free, used; } Memory;

static Device devices[] = {
    {"NVIDIA GeForce RTX 4090", 8, 9, 0, 24564ULL << 20},
    {"NVIDIA H100 80GB HBM3", 9, 0, 1, 81559ULL << 20},
    {"NVIDIA H100 80GB HBM3 MIG 1g.10gb", -1, -1, 0, 9984ULL << 20},
};
static int started = 0;

static int enter(const char *function) {
    const char *path = getenv("NVML_LOG"), *error = getenv(function);
    if (path) {
        FILE *log = fopen(path, "a");
        fprintf(log, "%s\n", function);
        fclose(log);
    }
    if (error) return atoi(error);
    return started || !strcmp(function, "nvmlInitWithFlags") ? SUCCESS : UNINITIALIZED;
}
#define ENTER do { int code = enter(__func__); if (code) return code; } while (0)

static unsigned count(void) {
    const char *gpus = getenv("NVML_GPUS");
    return gpus ? (unsigned)atoi(gpus) : 2;
}

static int copy(const char *text, char *to, unsigned length) {
    if (strlen(text) >= length) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) { ENTER; started = 1; return SUCCESS; }
int nvmlShutdown(void) { ENTER; started = 0; return SUCCESS; }
const char *nvmlErrorString(int code) { return "message of the driver"; }
int nvmlSystemGetDriverVersion(char *to, unsigned length) {
    ENTER; return copy("580.65.06", to, length);
}
int nvmlDeviceGetCount_v2(unsigned *to) { ENTER; *to = count(); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **to) {
    ENTER;
    if (index >= count()) return INVALID_ARGUMENT;
    *to = &devices[index];
    return SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device **to) {
    ENTER;
    if (!strcmp(uuid, "GPU-00000000-0000-0000-0000-000000000001")) *to = &devices[1];
    else if (!strcmp(uuid, "MIG-00000000-0000-0000-0000-000000000001")) *to = &devices[2];
    else return NOT_FOUND;
    return SUCCESS;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *slice, Device **to) {
    ENTER;
    if (slice != &devices[2]) return INVALID_ARGUMENT;
    *to = &devices[1];
    return SUCCESS;
}
int nvmlDeviceGetName(Device *device, char *to, unsigned length) {
    ENTER; return copy(device->name, to, length);
}
int nvmlDeviceGetMemoryInfo(Device *device, Memory *to) {
    ENTER; to->total = to->free = device->total; to->used = 0; return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor) {
    ENTER;
    if (device->major < 0) return INVALID_ARGUMENT;
    *major = device->major; *minor = device->minor;
    return SUCCESS;
}
int nvmlDeviceGetIndex(Device *device, unsigned *to) {
    ENTER; *to = (unsigned)device->index; return SUCCESS;
}
"""


def compile_nvml(folder: Path) -> Path:
    """Compile the library into `folder`, for LD_LIBRARY_PATH; skips the test without gcc."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; it compiles the fake of NVIDIA's library")
    source, library = folder / "nvml.c", folder / "libnvidia-ml.so.1"
    source.write_text(SOURCE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return folder
