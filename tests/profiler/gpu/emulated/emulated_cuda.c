/* A CUDA driver emulated on the CPU: the host code of PyCUDA and cuda-bindings runs over it without a GPU.
 *
 * Built as libcuda.so.1 against NVIDIA's own cuda.h, so that the compiler holds every signature to the real ones.
 * What it proves is host code: the order of calls, lifetimes, errors. It proves nothing about a GPU's speed.
 *
 * Memory is the host's. Work is done at once, but takes time on clocks of its own: the host's clock moves with every
 * call that enqueues something, each stream has the time at which its work is done, and events read that. Times are
 * therefore exact, and the same in every run. Streams that capture record work instead, as CUDA's do, and refuse what
 * CUDA's refuse: waiting and allocating.
 *
 * What no function here provides is a stub that returns CUDA_ERROR_NOT_SUPPORTED (build.py writes them).
 *
 * Environment, read at cuInit; numbers are whole:
 *   EMULATED_CUDA_INIT       the code that cuInit returns (0)
 *   EMULATED_CUDA_VERSION    of the driver (13000)
 *   EMULATED_CUDA_DEVICES    how many GPUs there are (1)
 *   EMULATED_CUDA_NAME       of every GPU (Emulated GPU and its number)
 *   EMULATED_CUDA_MIG        1: they are slices, with ids of their own (0)
 *   EMULATED_CUDA_MEMORY     bytes of each (8 GiB); what goes beyond is out of memory
 *   EMULATED_CUDA_CALL_NS    the host's time for a call that enqueues (5000)
 *   EMULATED_CUDA_NODE_NS    the GPU's time for one piece of work, beside its bytes (1000)
 *   EMULATED_CUDA_BYTES_NS   bytes that the GPU sets or copies in a nanosecond (1000)
 *   EMULATED_CUDA_FAIL       FUNCTION:NUMBER:CODE,…: from that call on (counted from 1) the function fails with the
 *                            code; with NUMBER=N! only that one call does. Codes that CUDA calls unrecoverable stick.
 *   EMULATED_CUDA_LACKS      a function that this driver is too old to have
 *   CUDA_VISIBLE_DEVICES     numbers, as CUDA reads them: up to the first that does not exist
 */
#define _GNU_SOURCE
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES_MAX 8
#define RULES_MAX 16
#define STACK_MAX 64

enum { LIVE = 0x11fe, DEAD = 0xdead };

typedef struct {
    enum { FILL, COPY } kind;
    CUdeviceptr target, source;
    unsigned char value;
    size_t bytes;
} Work;

struct CUgraph_st { int state; Work *work; size_t count; };
struct CUgraphExec_st { int state; Work *work; size_t count; };
struct CUevent_st { int state, recorded; uint64_t ns; };
struct CUstream_st { int state; uint64_t done_ns; int capturing, spoilt; struct CUgraph_st *graph; };
struct CUctx_st { int device; };

typedef struct Block { CUdeviceptr start; size_t bytes; int device; struct Block *next; } Block;
typedef struct { char function[64]; long number; int only_once; int code; long seen; } Rule;

static int initialised, device_count, visible[DEVICES_MAX], is_mig, version, sticky;
static int retained[DEVICES_MAX];
static unsigned flags_of[DEVICES_MAX];
static size_t memory_bytes, used_bytes[DEVICES_MAX];
static uint64_t host_ns, call_ns, node_ns, bytes_per_ns;
static long live_streams, live_events, live_graphs;
static struct CUctx_st contexts[DEVICES_MAX];
static CUcontext stack[STACK_MAX];
static int depth;
static Block *blocks;
static Rule rules[RULES_MAX];
static int rule_count;
static struct CUstream_st default_stream = { .state = LIVE };

/* ------------------------------------------------------------------------------- what the tests ask us */

long emulated_live_streams(void) { return live_streams; }
long emulated_live_events(void) { return live_events; }
long emulated_live_graphs(void) { return live_graphs; }
long emulated_used_bytes(int device) { return (long)used_bytes[device]; }
long emulated_retained(int device) { return retained[device]; }
long emulated_host_ns(void) { return (long)host_ns; }

/* ------------------------------------------------------------------------------------------ injected errors */

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void read_rules(void)
{
    const char *text = getenv("EMULATED_CUDA_FAIL");
    char *copy = text ? strdup(text) : NULL, *rest = copy, *part;
    while (rest && (part = strsep(&rest, ",")) && rule_count < RULES_MAX) {
        Rule *rule = &rules[rule_count];
        char number[32];
        if (sscanf(part, "%63[^:]:%31[^:]:%d", rule->function, number, &rule->code) != 3) {
            fprintf(stderr, "EMULATED_CUDA_FAIL: cannot read '%s'\n", part);
            abort();
        }
        rule->number = strtol(number, NULL, 10);
        rule->only_once = strchr(number, '!') != NULL;
        rule_count++;
    }
    free(copy);
}

static int is_unrecoverable(int code)
{
    return code == 214 || code == 220 || code == 700 || code == 702 || code == 709 || code == 710
        || (code >= 714 && code <= 719) || code == 999;
}

/* Every function begins with this: lost GPUs stay lost, and injected errors happen. */
static CUresult entered(const char *function)
{
    if (sticky)
        return (CUresult)sticky;
    if (!initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    for (int i = 0; i < rule_count; i++) {
        Rule *rule = &rules[i];
        if (strcmp(rule->function, function))
            continue;
        rule->seen++;
        if (rule->only_once ? rule->seen == rule->number : rule->seen >= rule->number) {
            if (is_unrecoverable(rule->code))
                sticky = rule->code;
            return (CUresult)rule->code;
        }
    }
    return CUDA_SUCCESS;
}

#define ENTER(function)                                   \
    do {                                                  \
        CUresult entered_code = entered(function);        \
        if (entered_code != CUDA_SUCCESS)                 \
            return entered_code;                          \
    } while (0)
#define REQUIRE(condition, code)                          \
    do {                                                  \
        if (!(condition))                                 \
            return (code);                                \
    } while (0)
#define IN_CONTEXT(function)                              \
    do {                                                  \
        ENTER(function);                                  \
        REQUIRE(depth > 0, CUDA_ERROR_INVALID_CONTEXT);   \
    } while (0)

/* ------------------------------------------------------------------------------------------- start, devices */

static void read_visible(int there)
{
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    device_count = 0;
    if (!text) {
        while (device_count < there) {
            visible[device_count] = device_count;
            device_count++;
        }
        return;
    }
    while (*text && device_count < DEVICES_MAX) {
        char *end;
        long number = strtol(text, &end, 10);
        if (end == text || number < 0 || number >= there)
            return;
        visible[device_count++] = (int)number;
        text = *end == ',' ? end + 1 : end;
    }
}

CUresult cuInit(unsigned int flags)
{
    (void)flags;
    CUresult code = (CUresult)number_of("EMULATED_CUDA_INIT", 0);
    if (code != CUDA_SUCCESS || initialised)
        return code;
    int there = (int)number_of("EMULATED_CUDA_DEVICES", 1);
    read_visible(there < DEVICES_MAX ? there : DEVICES_MAX);
    if (!device_count)
        return CUDA_ERROR_NO_DEVICE;
    is_mig = (int)number_of("EMULATED_CUDA_MIG", 0);
    memory_bytes = number_of("EMULATED_CUDA_MEMORY", (uint64_t)8 << 30);
    call_ns = number_of("EMULATED_CUDA_CALL_NS", 5000);
    node_ns = number_of("EMULATED_CUDA_NODE_NS", 1000);
    bytes_per_ns = number_of("EMULATED_CUDA_BYTES_NS", 1000);
    read_rules();
    initialised = 1;
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *answer)
{
    version = (int)number_of("EMULATED_CUDA_VERSION", 13000);
    *answer = version;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
    ENTER("cuDeviceGetCount");
    *count = device_count;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    ENTER("cuDeviceGet");
    REQUIRE(ordinal >= 0 && ordinal < device_count, CUDA_ERROR_INVALID_DEVICE);
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    ENTER("cuDeviceGetName");
    const char *given = getenv("EMULATED_CUDA_NAME");
    if (given) snprintf(name, (size_t)length, "%s", given);
    else snprintf(name, (size_t)length, "Emulated GPU %d", visible[device]);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    (void)device;
    ENTER("cuDeviceTotalMem");
    *bytes = memory_bytes;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    (void)device;
    ENTER("cuDeviceGetAttribute");
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 7; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 80; break;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 6 << 20; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
    default: *value = 0;
    }
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    (void)device;
    ENTER("cuDeviceComputeCapability");
    *major = 7;
    *minor = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    ENTER("cuDeviceGetUuid");
    memset(uuid->bytes, 0xe0 + visible[device], sizeof uuid->bytes);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    ENTER("cuDeviceGetUuid_v2");
    memset(uuid->bytes, (is_mig ? 0x30 : 0xe0) + visible[device], sizeof uuid->bytes);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char *name, int length, CUdevice device)
{
    ENTER("cuDeviceGetPCIBusId");
    snprintf(name, (size_t)length, "0000:%02x:00.0", visible[device]);
    return CUDA_SUCCESS;
}

static const struct { int code; const char *name, *text; } words[] = {
    { 0, "CUDA_SUCCESS", "no error" },
    { 1, "CUDA_ERROR_INVALID_VALUE", "invalid argument" },
    { 2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory" },
    { 3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error" },
    { 100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected" },
    { 101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal" },
    { 201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context" },
    { 214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered" },
    { 400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle" },
    { 700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered" },
    { 701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch" },
    { 719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure" },
    { 801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported" },
    { 803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination" },
    { 900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing" },
    { 901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture" },
    { 999, "CUDA_ERROR_UNKNOWN", "unknown error" },
};

static CUresult told(CUresult code, const char **answer, int as_name)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i].code == (int)code) {
            *answer = as_name ? words[i].name : words[i].text;
            return CUDA_SUCCESS;
        }
    *answer = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorName(CUresult code, const char **name) { return told(code, name, 1); }
CUresult cuGetErrorString(CUresult code, const char **text) { return told(code, text, 0); }

/* ------------------------------------------------------------------------------------------------- contexts */

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags)
{
    ENTER("cuDevicePrimaryCtxSetFlags");
    flags_of[device] = flags;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    ENTER("cuDevicePrimaryCtxGetState");
    *flags = flags_of[device];
    *active = retained[device] > 0;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    ENTER("cuDevicePrimaryCtxRetain");
    retained[device]++;
    contexts[device].device = device;
    *context = &contexts[device];
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    ENTER("cuDevicePrimaryCtxRelease");
    REQUIRE(retained[device] > 0, CUDA_ERROR_INVALID_CONTEXT);
    retained[device]--;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    ENTER("cuCtxPushCurrent");
    REQUIRE(context && depth < STACK_MAX, CUDA_ERROR_INVALID_CONTEXT);
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    IN_CONTEXT("cuCtxPopCurrent");
    depth--;
    if (context)
        *context = stack[depth];
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    ENTER("cuCtxSetCurrent");
    if (depth)
        depth--;
    if (context)
        stack[depth++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    ENTER("cuCtxGetCurrent");
    *context = depth ? stack[depth - 1] : NULL;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    IN_CONTEXT("cuCtxGetDevice");
    *device = stack[depth - 1]->device;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext context, unsigned int *answer)
{
    (void)context;
    ENTER("cuCtxGetApiVersion");
    *answer = 3020;
    return CUDA_SUCCESS;
}

/* -------------------------------------------------------------------------------------------- capture, work */

static struct CUstream_st *stream_from(CUstream handle)
{
    return handle ? handle : &default_stream;
}

/* One thread, hence one capture at a time: what is forbidden while it lasts spoils it. */
static struct CUstream_st *capturing_stream;

static CUresult forbidden_while_capturing(void)
{
    if (!capturing_stream)
        return CUDA_SUCCESS;
    capturing_stream->spoilt = 1;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

#define NOT_WHILE_CAPTURING()                             \
    do {                                                  \
        CUresult capture_code = forbidden_while_capturing(); \
        if (capture_code != CUDA_SUCCESS)                 \
            return capture_code;                          \
    } while (0)

static int is_inside_a_block(CUdeviceptr address, size_t bytes)
{
    for (Block *block = blocks; block; block = block->next)
        if (address >= block->start && address + bytes <= block->start + block->bytes)
            return 1;
    return 0;
}

static CUresult do_work(struct CUstream_st *stream, const Work *work)
{
    if (!is_inside_a_block(work->target, work->bytes)
        || (work->kind == COPY && !is_inside_a_block(work->source, work->bytes))) {
        sticky = CUDA_ERROR_ILLEGAL_ADDRESS;
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    if (work->kind == FILL)
        memset((void *)(uintptr_t)work->target, work->value, work->bytes);
    else
        memmove((void *)(uintptr_t)work->target, (void *)(uintptr_t)work->source, work->bytes);
    stream->done_ns += node_ns + work->bytes / bytes_per_ns;
    return CUDA_SUCCESS;
}

/* The host takes its time for the call; work begins when it has, and when what is before it is done. */
static void begin_on(struct CUstream_st *stream)
{
    host_ns += call_ns;
    if (stream->done_ns < host_ns)
        stream->done_ns = host_ns;
}

static CUresult enqueue(CUstream handle, Work work)
{
    struct CUstream_st *stream = stream_from(handle);
    REQUIRE(stream->state == LIVE, CUDA_ERROR_INVALID_HANDLE);
    if (!stream->capturing) {
        begin_on(stream);
        return do_work(stream, &work);
    }
    REQUIRE(!stream->spoilt, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    struct CUgraph_st *graph = stream->graph;
    graph->work = realloc(graph->work, (graph->count + 1) * sizeof work);
    graph->work[graph->count++] = work;
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode)
{
    (void)mode;
    IN_CONTEXT("cuStreamBeginCapture");
    struct CUstream_st *stream = stream_from(handle);
    REQUIRE(handle && stream->state == LIVE && !capturing_stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    stream->capturing = 1;
    stream->spoilt = 0;
    stream->graph = calloc(1, sizeof *stream->graph);
    stream->graph->state = LIVE;
    live_graphs++;
    capturing_stream = stream;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph)
{
    IN_CONTEXT("cuGraphDestroy");
    REQUIRE(graph && graph->state == LIVE, CUDA_ERROR_INVALID_VALUE);
    graph->state = DEAD;
    free(graph->work);
    live_graphs--;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph)
{
    struct CUstream_st *stream = stream_from(handle);
    REQUIRE(stream->capturing, CUDA_ERROR_INVALID_VALUE);
    CUresult code = entered("cuStreamEndCapture");
    stream->capturing = 0;
    capturing_stream = NULL;
    *graph = stream->graph;
    if (code == CUDA_SUCCESS && stream->spoilt)
        code = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (code != CUDA_SUCCESS) {
        free(stream->graph->work);
        free(stream->graph);
        live_graphs--;
        *graph = NULL;
    }
    stream->graph = NULL;
    return code;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status)
{
    ENTER("cuStreamIsCapturing");
    struct CUstream_st *stream = stream_from(handle);
    *status = !stream->capturing ? CU_STREAM_CAPTURE_STATUS_NONE
        : stream->spoilt         ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                 : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph graph, unsigned long long flags)
{
    (void)flags;
    IN_CONTEXT("cuGraphInstantiate");
    REQUIRE(graph && graph->state == LIVE, CUDA_ERROR_INVALID_VALUE);
    struct CUgraphExec_st *made = calloc(1, sizeof *made);
    made->state = LIVE;
    made->count = graph->count;
    made->work = malloc(graph->count * sizeof *made->work + 1);
    memcpy(made->work, graph->work, graph->count * sizeof *made->work);
    live_graphs++;
    *executable = made;
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec graph, CUstream handle)
{
    IN_CONTEXT("cuGraphLaunch");
    struct CUstream_st *stream = stream_from(handle);
    REQUIRE(graph && graph->state == LIVE && stream->state == LIVE, CUDA_ERROR_INVALID_HANDLE);
    NOT_WHILE_CAPTURING();
    begin_on(stream);
    for (size_t i = 0; i < graph->count; i++) {
        CUresult code = do_work(stream, &graph->work[i]);
        if (code != CUDA_SUCCESS)
            return code;
    }
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec graph)
{
    IN_CONTEXT("cuGraphExecDestroy");
    REQUIRE(graph && graph->state == LIVE, CUDA_ERROR_INVALID_VALUE);
    graph->state = DEAD;
    free(graph->work);
    live_graphs--;
    return CUDA_SUCCESS;
}

/* -------------------------------------------------------------------------------------------------- memory */

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    IN_CONTEXT("cuMemAlloc");
    REQUIRE(bytes, CUDA_ERROR_INVALID_VALUE);
    NOT_WHILE_CAPTURING();
    int device = stack[depth - 1]->device;
    REQUIRE(bytes <= memory_bytes - used_bytes[device], CUDA_ERROR_OUT_OF_MEMORY);
    Block *block = malloc(sizeof *block);
    block->start = (CUdeviceptr)(uintptr_t)aligned_alloc(512, (bytes + 511) / 512 * 512);
    block->bytes = bytes;
    block->device = device;
    block->next = blocks;
    blocks = block;
    used_bytes[device] += bytes;
    *address = block->start;
    return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
    IN_CONTEXT("cuMemFree");
    NOT_WHILE_CAPTURING();
    for (Block **link = &blocks; *link; link = &(*link)->next) {
        Block *block = *link;
        if (block->start != address)
            continue;
        used_bytes[block->device] -= block->bytes;
        *link = block->next;
        free((void *)(uintptr_t)block->start);
        free(block);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    IN_CONTEXT("cuMemGetInfo");
    *free_bytes = memory_bytes - used_bytes[stack[depth - 1]->device];
    *total = memory_bytes;
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr target, const void *source, size_t bytes)
{
    IN_CONTEXT("cuMemcpyHtoD");
    NOT_WHILE_CAPTURING();
    REQUIRE(is_inside_a_block(target, bytes), CUDA_ERROR_INVALID_VALUE);
    memcpy((void *)(uintptr_t)target, source, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoH_v2(void *target, CUdeviceptr source, size_t bytes)
{
    IN_CONTEXT("cuMemcpyDtoH");
    NOT_WHILE_CAPTURING();
    REQUIRE(is_inside_a_block(source, bytes), CUDA_ERROR_INVALID_VALUE);
    memcpy(target, (void *)(uintptr_t)source, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream)
{
    IN_CONTEXT("cuMemcpyDtoDAsync");
    return enqueue(stream, (Work) { COPY, target, source, 0, bytes });
}

CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t bytes, CUstream stream)
{
    IN_CONTEXT("cuMemsetD8Async");
    return enqueue(stream, (Work) { FILL, target, 0, value, bytes });
}

/* ------------------------------------------------------------------------------------------ streams, events */

CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    (void)flags;
    IN_CONTEXT("cuStreamCreate");
    *stream = calloc(1, sizeof **stream);
    (*stream)->state = LIVE;
    live_streams++;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    IN_CONTEXT("cuStreamDestroy");
    REQUIRE(stream && stream->state == LIVE, CUDA_ERROR_INVALID_HANDLE);
    stream->state = DEAD; /* never freed, so that a use after this is seen */
    live_streams--;
    return CUDA_SUCCESS;
}

static void wait_until(uint64_t done_ns)
{
    if (host_ns < done_ns)
        host_ns = done_ns;
}

CUresult cuStreamSynchronize(CUstream handle)
{
    IN_CONTEXT("cuStreamSynchronize");
    REQUIRE(stream_from(handle)->state == LIVE, CUDA_ERROR_INVALID_HANDLE);
    NOT_WHILE_CAPTURING();
    wait_until(stream_from(handle)->done_ns);
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
    IN_CONTEXT("cuCtxSynchronize");
    NOT_WHILE_CAPTURING();
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned int flags)
{
    (void)flags;
    IN_CONTEXT("cuEventCreate");
    *event = calloc(1, sizeof **event);
    (*event)->state = LIVE;
    live_events++;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event)
{
    IN_CONTEXT("cuEventDestroy");
    REQUIRE(event && event->state == LIVE, CUDA_ERROR_INVALID_HANDLE);
    event->state = DEAD;
    live_events--;
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream handle)
{
    IN_CONTEXT("cuEventRecord");
    struct CUstream_st *stream = stream_from(handle);
    REQUIRE(event && event->state == LIVE && stream->state == LIVE, CUDA_ERROR_INVALID_HANDLE);
    if (stream->capturing)
        return CUDA_SUCCESS;
    event->ns = stream->done_ns > host_ns ? stream->done_ns : host_ns;
    event->recorded = 1;
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent event)
{
    IN_CONTEXT("cuEventSynchronize");
    REQUIRE(event && event->state == LIVE, CUDA_ERROR_INVALID_HANDLE);
    NOT_WHILE_CAPTURING();
    wait_until(event->ns);
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent begin, CUevent end)
{
    IN_CONTEXT("cuEventElapsedTime");
    REQUIRE(begin && end && begin->recorded && end->recorded, CUDA_ERROR_INVALID_HANDLE);
    *milliseconds = (float)(((double)end->ns - (double)begin->ns) / 1e6);
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent begin, CUevent end)
{
    return cuEventElapsedTime_v2(milliseconds, begin, end);
}

/* ------------------------------------------------------------------------------- how cuda-bindings finds us */

/* Functions whose signature or answer changed: which version of CUDA brought which suffix. All others have one. */
static const struct { const char *name, *suffix; int since; } changed[] = {
    { "cuCtxCreate", "_v4", 12050 },
    { "cuDeviceGetUuid", "_v2", 11040 },
    { "cuEventElapsedTime", "_v2", 12080 },
};

int emulated_unsupported(void); /* what all stubs are */

static void *symbol(const char *name, const char *suffix)
{
    char whole[128];
    snprintf(whole, sizeof whole, "%s%s", name, suffix);
    static void *self;
    if (!self)
        self = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_NOW);
    return dlsym(self, whole);
}

static void *find(const char *name, int wanted)
{
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++)
        if (!strcmp(changed[i].name, name))
            return symbol(name, wanted >= changed[i].since ? changed[i].suffix : "");
    if (!strcmp(name, "cuGraphInstantiate") && wanted >= 12000)
        return symbol("cuGraphInstantiateWithFlags", "");
    static const char *suffixes[] = { "_v4", "_v3", "_v2", "" };
    void *found = NULL;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        void *here = symbol(name, suffixes[i]);
        if (here && here != (void *)emulated_unsupported)
            return here;
        found = here ? here : found;
    }
    return found;
}

CUresult cuGetProcAddress_v2(
    const char *name, void **function, int wanted, cuuint64_t flags, CUdriverProcAddressQueryResult *status)
{
    (void)flags;
    const char *lacking = getenv("EMULATED_CUDA_LACKS");
    *function = lacking && !strcmp(lacking, name) ? NULL : find(name, wanted);
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress(const char *name, void **function, int wanted, cuuint64_t flags)
{
    return cuGetProcAddress_v2(name, function, wanted, flags, NULL);
}
