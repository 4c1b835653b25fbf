// Every CUDA kernel and launcher, compiled for the host.
#define TAD_CUDA_ON_HOST
#include "../cuda/commit_reveal.cu"
#include "../cuda/kernels.cu"
#include "../cuda/log_softmax.cu"
#include "../cuda/tad_loss.cu"
#include "../cuda/tad_totals.cu"
#include "../cuda/token_statistics.cu"
#include "../cuda/truncate_logits.cu"
