"""What the paper says is better than what, cell against cell, and which of its numbers say so.

The paper's numbers are those at hand. Of Table 1, averages over GSM8K, MATH, MBPP and HumanEval for LLaDA-8B: those of
Fast-dLLM, dParallel and D2F are made from the curves in its published code, which give the printed ones of the others.
Of Table 3, MATH. Those of Tables 4, 5, 6 and 9 and of Figure 3 are not at hand, and the direction alone is compared.
"""

from dataclasses import dataclass

#: What two cells are compared in. The first two are the study's primary outcome.
AT_2, AT_3 = "at 2", "at 3"
ONE, AUP, SPEED, THERE = "one per step", "AUP", "tokens per forward at 0.5", "accuracy at 0.5"
PRIMARY = (AT_2, AT_3)
OUTCOMES = {
    AT_2: "best accuracy in percent at 2 or more tokens per forward",
    AT_3: "best accuracy in percent at 3 or more tokens per forward",
    ONE: "accuracy in percent at one token per step",
    AUP: "accuracy under parallelism, with the base's best accuracy of all methods as y_max",
    SPEED: "tokens per forward at the published threshold, entropy 0.5",
    THERE: "accuracy in percent at the published threshold, entropy 0.5",
}

#: Of the cell "confidence": means of the probability of the trajectory's token.
NEAR, FAR, STUDENT, TEACHER = "near", "far", "student", "teacher"
CURVES = {
    NEAR: "the student's confidence one step before a token is revealed",
    FAR: "the student's confidence 20 steps before, or as far before as there is",
    STUDENT: "the student's confidence, mean over all distances",
    TEACHER: "the teacher's confidence, mean over all distances",
}


@dataclass(frozen=True)
class Claim:
    """`first` is higher than `second`; both are cells, compared in each of `outcomes`, or curves of the confidence."""

    name: str
    table: str
    says: str
    first: str
    second: str
    outcomes: tuple[str, ...] = PRIMARY
    paper: str = "not at hand"
    of_paper: bool = True  #: False: not the paper's question; it separates two things that the paper changes together


CLAIMS = (
    # Table 3
    Claim("tad_ce_all", "3", "CE near and KL distant are better than CE everywhere", "tad", "ce_all",
          paper="MATH 42.7 % at 4.49 against 40.3 % at 4.34"),
    Claim("tad_kl_all", "3", "... than KL everywhere", "tad", "kl_all",
          paper="42.7 % at 4.49 against 41.4 % at 2.08"),
    Claim("tad_ce_near", "3", "... than CE near alone", "tad", "ce_near",
          paper="42.7 % at 4.49 against 34.8 % at 5.12"),
    Claim("kl_all_slow", "3", "KL everywhere is slow", "tad", "kl_all", (SPEED,), paper="4.49 against 2.08"),
    Claim("ce_near_fast", "3", "CE near alone is fast", "ce_near", "tad", (SPEED,), paper="5.12 against 4.49"),
    # Table 4
    Claim("privilege", "4", "Privilege helps: trajectories and teacher with the reference against neither", "tad",
          "own_none"),
    Claim("states", "4", "TAD's states and loss are better than random masks on the same trajectories", "tad",
          "sft_privileged"),
    Claim("trajectories", "4", "By random masks, privileged trajectories are better to learn than given responses",
          "sft_privileged", "sft_given", of_paper=False),
    Claim("teacher_alone", "4", "The teacher's privilege alone, trajectories privileged", "tad", "privileged_none",
          of_paper=False),
    Claim("source_alone", "4", "The trajectories' privilege alone, teacher privileged", "tad", "own_shown",
          of_paper=False),
    Claim("teacher_on_own", "4", "The teacher's privilege alone, own trajectories", "own_shown", "own_none",
          of_paper=False),
    Claim("source_plain", "4", "The trajectories' privilege alone, plain teacher", "privileged_none", "own_none",
          of_paper=False),
    # Table 1
    Claim("accuracy", "1", "TAD is more accurate than its base, one token per step", "tad", "base", (ONE,),
          paper="52.5 against 46.2 %"),
    Claim("base", "1", "TAD is more accurate than its base at the same speed", "tad", "base",
          paper="51.6 % at 5.08; base 46.2 % at 1"),
    Claim("fast_dllm", "1", "... than Fast-dLLM", "tad", "fast_dllm", paper="45.5 % at 2.36"),
    Claim("dparallel", "1", "... than dParallel", "tad", "dparallel", paper="45.5 % at 3.90"),
    Claim("d3llm", "1", "... than d3LLM", "tad", "d3llm", paper="45.9 % at 6.25"),
    Claim("d2f", "1", "... than D2F", "tad", "d2f", paper="45.7 % at 2.59"),
    Claim("dparallel_privileged", "1", "... than dParallel on TAD's trajectories", "tad", "dparallel_privileged",
          of_paper=False),
    Claim("d3llm_privileged", "1", "... than d3LLM on TAD's trajectories", "tad", "d3llm_privileged", of_paper=False),
    Claim("d2f_privileged", "1", "... than D2F on TAD's trajectories", "tad", "d2f_privileged", of_paper=False),
    Claim("aup_d3llm", "1", "TAD's area is larger than d3LLM's", "tad", "d3llm", (AUP,), paper="225.2 against 206.1"),
    Claim("aup_base", "1", "... than its base's", "tad", "base", (AUP,), paper="225.2 against 46.2"),
    Claim("aup_speed", "1", "The speed model's area is larger than the quality model's", "tad_speed", "tad", (AUP,),
          paper="257.1 against 225.2"),
    Claim("speed_faster", "1", "The speed model is faster", "tad_speed", "tad", (SPEED,), paper="5.76 against 5.08"),
    Claim("speed_accuracy", "1", "The speed model is less accurate there", "tad", "tad_speed", (THERE,),
          paper="51.6 against 49.9 %"),
    # Table 5 and 6
    Claim("delta_speed", "5", "A larger delta is faster: 16 against 2", "delta_16", "delta_2", (SPEED,)),
    Claim("delta_accuracy", "5", "A smaller delta is more accurate there: 2 against 16", "delta_2", "delta_16",
          (THERE,)),
    Claim("delta_2", "5", "Delta 4 is better than 2", "tad", "delta_2", of_paper=False),
    Claim("delta_16", "5", "Delta 4 is better than 16", "tad", "delta_16", of_paper=False),
    Claim("kl_weight_0.3", "6", "A weight of 1 is better than 0.3", "tad", "kl_weight_0.3", of_paper=False),
    Claim("kl_weight_3", "6", "A weight of 1 is better than 3", "tad", "kl_weight_3", of_paper=False),
    # Table 9, Figure 3
    Claim("teacher", "9", "The teacher answers better with the reference", "teacher", "base", (ONE,)),
    Claim("decay", "Figure 3", "Confidence falls with the steps until a token is revealed", NEAR, FAR, ("confidence",)),
    Claim("sure_teacher", "Figure 3", "The privileged teacher is surer than the student", TEACHER, STUDENT,
          ("confidence",)),
)  # fmt: skip

#: Of the study where confidence falls with distance, and the paper's rule finds a delta.
VARIED_CLAIMS = (
    Claim("rule_4", "5", "A delta near the paper's rule, 22, is better than 4", "delta_22", "tad", (AT_2,)),
    Claim("rule_16", "5", "... than 16", "delta_22", "delta_16", (AT_2,)),
    Claim("light", "5", "Delta 22 is better with kl_weight 0.05 than with 1", "delta_22_light", "delta_22", (AT_2,)),
    Claim("larger", "5", "Delta 16 is better than 4", "delta_16", "tad", (AT_2,)),
    Claim("smaller", "5", "Delta 4 is better than 2", "tad", "delta_2", (AT_2,)),
    Claim("varied_ce_all", "3", "Delta 4 is better than CE everywhere", "tad", "ce_all", (AT_2,)),
    Claim("varied_base", "1", "Delta 4 is better than its base", "tad", "base", (AT_2,)),
)

#: Of the study with few problems.
FEW_CLAIMS = (Claim("few_near", "3", "CE near and KL distant are better than CE near alone", "tad", "ce_near"),)

#: LLaDA-8B's rows of Table 1, averages of four tasks: accuracy in percent, tokens per forward, AUP.
PUBLISHED_ROWS: dict[str, tuple[float, float, float | None]] = {
    "base": (46.2, 1.0, 46.2),
    "fast_dllm": (45.5, 2.36, 84.7),
    "dparallel": (45.5, 3.90, 128.5),
    "d3llm": (45.9, 6.25, 206.1),
    "d2f": (45.7, 2.59, 87.8),
    "tad": (51.6, 5.08, 225.2),
    "tad_speed": (49.9, 5.76, 257.1),
}
#: And MATH of its Table 3.
PUBLISHED_OBJECTIVES: dict[str, tuple[float, float, float | None]] = {
    "tad": (42.7, 4.49, None),
    "ce_all": (40.3, 4.34, None),
    "kl_all": (41.4, 2.08, None),
    "ce_near": (34.8, 5.12, None),
}
