from .lora_settings import LoRASettings as LoRASettings
from .objective import Objective as Objective
from .settings import TADSettings as TADSettings
from .settings import TrainingSettings as TrainingSettings
from .tad import TADObjective as TADObjective
