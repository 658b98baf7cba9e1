"""The door of analyses: what a command that looks into trained networks can be asked. Imports no TensorFlow."""

from kerasgreedy.spec.analyses_of_layers import Explain, Identities, Separability, Transfer, Visualize, WeightSizes
from kerasgreedy.spec.analyses_of_loss import Connect, Curvature, Landscape
from kerasgreedy.spec.doors import Choice, Door

ANALYSES = Door(
    "analyses",
    [
        Choice("kerasgreedy.analysis.landscape:LandscapeAnalysis", Landscape),
        Choice("kerasgreedy.analysis.curvature:CurvatureAnalysis", Curvature),
        Choice("kerasgreedy.analysis.connect:ConnectAnalysis", Connect),
        Choice("kerasgreedy.analysis.weights:WeightsAnalysis", WeightSizes),
        Choice("kerasgreedy.analysis.identities:IdentitiesAnalysis", Identities),
        Choice("kerasgreedy.analysis.probe:ProbeAnalysis", Separability),
        Choice("kerasgreedy.analysis.transfer:TransferAnalysis", Transfer),
        Choice("kerasgreedy.analysis.explain:ExplainAnalysis", Explain),
        Choice("kerasgreedy.analysis.visualize:VisualizeAnalysis", Visualize),
    ],
)
