// Macros that let one header serve three compilers: nvcc for the device, the host compiler for the bindings, and the
// host compiler once per instruction set for the CPU backend.
#pragma once

#if defined(__CUDACC__)
#define TAD_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define TAD_HOST_DEVICE inline
#endif

// Before a loop that mostly has one round or few: nvcc would make sixteen of it, of code that is fetched to run once.
#if defined(__CUDA_ARCH__)
#define TAD_FEW_ROUNDS _Pragma("unroll 1")
#else
#define TAD_FEW_ROUNDS
#endif

// Every function of csrc/common and csrc/cpu lives in tad::TAD_ISA. A translation unit that compiles for AVX-512 names
// its own namespace, so that the linker can never replace a portable function by a copy with AVX-512 instructions.
#ifndef TAD_ISA
#define TAD_ISA portable
#endif
