"""The demo's built-in camera: a synthetic scene with known truth (only numpy and cv2)."""

from pipeline.scene.truth import SceneObject, box_iou, match_truth
from pipeline.scene.world import SCENE_LABELS, Scene, SceneFrame

__all__ = ["SCENE_LABELS", "Scene", "SceneFrame", "SceneObject", "box_iou", "match_truth"]
