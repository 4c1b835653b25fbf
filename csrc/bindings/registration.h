// How an operator's file registers what it holds. The file is read from top to bottom: schemas, checks and body (the
// same for every device), derivative.
//
//   TAD_SCHEMAS(m) { m.def("twice(Tensor x) -> Tensor"); }
//   at::Tensor twice(const at::Tensor& x) { ... }
//   TAD_KERNELS(m) { m.impl("twice", twice); }
//   TAD_DERIVATIVES(m) { m.impl("twice", without_derivative()); }
#pragma once

#include <torch/library.h>

namespace tad {

/// The derivative of an operator whose results are constants; what it writes to cannot require gradients.
torch::CppFunction without_derivative();

/// That of an operator that is a derivative itself: differentiating once more is an error.
torch::CppFunction once_only();

}  // namespace tad

/// A function that nobody calls.
#define TAD_NOT_REGISTERED(name, m) [[maybe_unused]] static void name([[maybe_unused]] torch::Library& m)

#if defined(TAD_CUDA_ON_HOST)
// A test library, loaded beside the module: it has the module's schemas and derivatives, and takes its CPU kernels'
// place.
#define TAD_SCHEMAS(m) TAD_NOT_REGISTERED(C10_CONCATENATE(tad_schemas_, C10_UID), m)
#define TAD_DERIVATIVES(m) TAD_NOT_REGISTERED(C10_CONCATENATE(tad_derivatives_, C10_UID), m)
#define TAD_KERNELS(m) TORCH_LIBRARY_IMPL(tad_ext, CPU, m)
#else
#define TAD_SCHEMAS(m) TORCH_LIBRARY_FRAGMENT(tad_ext, m)
#define TAD_DERIVATIVES(m) TORCH_LIBRARY_IMPL(tad_ext, Autograd, m)
// Without kernels compiled for CUDA, those of CUDA tensors say how to get them.
#define TAD_KERNELS(m) TAD_KERNELS_NAMED(C10_CONCATENATE(tad_kernels_, C10_UID), m)
#define TAD_KERNELS_NAMED(name, m)       \
  static void name(torch::Library&);     \
  TORCH_LIBRARY_IMPL(tad_ext, CPU, m) {  \
    name(m);                             \
  }                                      \
  TORCH_LIBRARY_IMPL(tad_ext, CUDA, m) { \
    name(m);                             \
  }                                      \
  static void name(torch::Library& m)
#endif
