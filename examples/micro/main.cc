// Runs a file on TensorFlow Lite Micro: images from the standard input, as the int8 numbers of its input; for each a line
// of its output's numbers, and one with the place of the largest, on the standard output.
//
// model.cc and model.h are what tflite_export.export_tflite(q, "model.tflite", target="micro") writes.

#include <cstdio>

#include "model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {
alignas(16) unsigned char arena[model::kArenaBytes];
}

int main() {
  model::OpResolver resolver;
  if (model::RegisterOps(resolver) != kTfLiteOk) return 1;
  tflite::MicroInterpreter interpreter(tflite::GetModel(model::kModel), resolver, arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    std::fprintf(stderr, "kArenaBytes is too small, or an operator does not take the file.\n");
    return 1;
  }
  TfLiteTensor* input = interpreter.input(0);
  while (std::fread(input->data.raw, 1, input->bytes, stdin) == input->bytes) {
    if (interpreter.Invoke() != kTfLiteOk) return 1;
    const TfLiteTensor* output = interpreter.output(0);
    size_t best = 0;
    for (size_t i = 0; i < output->bytes; ++i) {
      std::printf("%d ", output->data.int8[i]);
      if (output->data.int8[i] > output->data.int8[best]) best = i;
    }
    std::printf("\nlargest: %zu\n", best);
  }
  std::fprintf(stderr, "arena: %zu of %zu bytes used\n", interpreter.arena_used_bytes(), sizeof(arena));
  return 0;
}
