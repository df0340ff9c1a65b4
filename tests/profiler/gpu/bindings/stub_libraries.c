/* What NVIDIA's Python bindings of TensorRT look up when they are imported, doing nothing: enough to read every
 * class, method and enumeration that a version has, not to create anything. Linked under the names libnvinfer,
 * libnvonnxparser, libnvinfer_plugin and libnvparsers of each major version.
 */
#define NOTHING(name) \
    void *name(void) { return 0; }

NOTHING(createInferBuilder_INTERNAL)
NOTHING(createInferRefitter_INTERNAL)
NOTHING(createInferRuntime_INTERNAL)
NOTHING(createNvOnnxParserRefitter_INTERNAL)
NOTHING(createNvOnnxParser_INTERNAL)
NOTHING(getBuilderPluginRegistry)
NOTHING(getNvOnnxParserVersion)
NOTHING(getPluginRegistry)
NOTHING(initLibNvInferPlugins)

/* C++ names of the parsers that 8.6 still had: nvcaffeparser1::createCaffeParser() and its like. */
NOTHING(_ZN14nvcaffeparser117createCaffeParserEv)
NOTHING(_ZN14nvcaffeparser123shutdownProtobufLibraryEv)
NOTHING(_ZN11nvuffparser15createUffParserEv)
NOTHING(_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi)
