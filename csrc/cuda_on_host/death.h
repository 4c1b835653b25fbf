// Death tests: code that must not survive runs in a child process, and the parent reads what it said.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace cuda_on_host {

// Runs `broken` in a child process, which must not survive it; returns what it wrote to stderr.
inline std::string death_of(void (*broken)()) {
  std::fflush(stdout);
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  const pid_t child = fork();
  if (child == 0) {
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    dup2(ends[1], STDERR_FILENO);
    broken();
    _exit(EXIT_SUCCESS);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t bytes; (bytes = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, size_t(bytes));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS ? "survived\n" + text : text;
}

// Whether `broken` dies and says all of `message`; prints what it says instead.
inline bool dies(void (*broken)(), const std::vector<std::string>& message = {}) {
  const std::string text = death_of(broken);
  bool right = !text.starts_with("survived");
  for (const std::string& part : message) right &= text.find(part) != std::string::npos;
  if (!right) std::printf("instead of the expected message:\n%s\n", text.c_str());
  return right;
}

}  // namespace cuda_on_host
