/* NVIDIA's management library emulated: what the real nvidia-ml-py reads is what the environment says.
 *
 * Built as libnvidia-ml.so.1 beside the emulated driver. A handle is the GPU's UUID; one that begins with MIG- is a
 * slice, for which clocks, temperature and power are not told, as on real ones.
 *
 * Environment, read at every call; numbers are whole, what is not set is "not supported":
 *   EMULATED_NVML_SM EMULATED_NVML_MEM       clocks in MHz; EMULATED_NVML_SM_DEFAULT and _SM_MAX likewise
 *   EMULATED_NVML_TEMPERATURE                degrees
 *   EMULATED_NVML_POWER EMULATED_NVML_LIMIT  milliwatts
 *   EMULATED_NVML_PERSISTENCE                0 or 1
 *   EMULATED_NVML_REASONS                    the bits of nvmlClocksEventReasons
 *   EMULATED_NVML_OLD                        1: the driver knows those bits by their older name only
 *   EMULATED_NVML_PERMITTED                  1: clocks may be fixed; emulated_locked_mhz() tells which
 *   EMULATED_NVML_LOCKED                     a file that says so to other processes, and outlives this one
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, FUNCTION_NOT_FOUND = 13 };
enum { CLOCK_SM = 1, CLOCK_MEM = 2 };
typedef struct { char uuid[96]; } Device;

static Device slice, whole;
static unsigned locked_mhz;

unsigned emulated_locked_mhz(void) { return locked_mhz; }

static void keep_locked(unsigned mhz)
{
    const char *path = getenv("EMULATED_NVML_LOCKED");
    FILE *file = path && *path ? fopen(path, "w") : NULL;
    locked_mhz = mhz;
    if (file) {
        fprintf(file, "%u", mhz);
        fclose(file);
    }
}

static int told(const char *name, unsigned *answer)
{
    const char *text = getenv(name);
    if (!text || !*text)
        return NOT_SUPPORTED;
    *answer = (unsigned)strtoul(text, NULL, 10);
    return OK;
}

static int of(const Device *device, const char *name, unsigned *answer)
{
    return device == &slice ? NOT_SUPPORTED : told(name, answer);
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return OK; }
int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int code)
{
    return code == NO_PERMISSION ? "Insufficient Permissions" : code == NOT_FOUND ? "Not Found" : "Not Supported";
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device)
{
    if (!strncmp(uuid, "MIG-", 4))
        *device = &slice;
    else if (!strncmp(uuid, "GPU-e", 5)) /* what the emulated driver's GPUs are called */
        *device = &whole;
    else
        return NOT_FOUND;
    strncpy((*device)->uuid, uuid, sizeof(*device)->uuid - 1);
    return OK;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *device, Device **answer)
{
    if (device != &slice)
        return NOT_SUPPORTED;
    *answer = &whole;
    return OK;
}

int nvmlDeviceGetClockInfo(Device *device, int kind, unsigned *mhz)
{
    return of(device, kind == CLOCK_MEM ? "EMULATED_NVML_MEM" : "EMULATED_NVML_SM", mhz);
}

int nvmlDeviceGetMaxClockInfo(Device *device, int kind, unsigned *mhz)
{
    (void)kind;
    return of(device, "EMULATED_NVML_SM_MAX", mhz);
}

int nvmlDeviceGetDefaultApplicationsClock(Device *device, int kind, unsigned *mhz)
{
    (void)kind;
    return of(device, "EMULATED_NVML_SM_DEFAULT", mhz);
}

int nvmlDeviceGetApplicationsClock(Device *device, int kind, unsigned *mhz)
{
    return nvmlDeviceGetDefaultApplicationsClock(device, kind, mhz);
}

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *degrees)
{
    (void)sensor;
    return of(device, "EMULATED_NVML_TEMPERATURE", degrees);
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts)
{
    return of(device, "EMULATED_NVML_POWER", milliwatts);
}

int nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned *milliwatts)
{
    return of(device, "EMULATED_NVML_LIMIT", milliwatts);
}

int nvmlDeviceGetPersistenceMode(Device *device, int *mode)
{
    return of(device, "EMULATED_NVML_PERSISTENCE", (unsigned *)mode);
}

static int reasons(Device *device, unsigned long long *bits)
{
    unsigned answer;
    int code = of(device, "EMULATED_NVML_REASONS", &answer);
    *bits = code == OK ? answer : 0;
    return code;
}

int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *bits)
{
    unsigned is_old = 0;
    told("EMULATED_NVML_OLD", &is_old);
    return is_old ? FUNCTION_NOT_FOUND : reasons(device, bits);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *bits)
{
    return reasons(device, bits);
}

int nvmlDeviceSetGpuLockedClocks(Device *device, unsigned lowest_mhz, unsigned highest_mhz)
{
    unsigned permitted = 0;
    (void)highest_mhz;
    told("EMULATED_NVML_PERMITTED", &permitted);
    if (device == &slice || !permitted)
        return device == &slice ? NOT_SUPPORTED : NO_PERMISSION;
    keep_locked(lowest_mhz);
    return OK;
}

int nvmlDeviceResetGpuLockedClocks(Device *device)
{
    (void)device;
    keep_locked(0);
    return OK;
}
