// Every CUDA kernel and launcher, compiled for the host.
#include "../cuda/kernels.cu"
#include "../cuda/commit_reveal.cu"
#include "../cuda/log_softmax.cu"
#include "../cuda/tad_loss.cu"
#include "../cuda/tad_totals.cu"
#include "../cuda/token_statistics.cu"
#include "../cuda/truncate_logits.cu"
