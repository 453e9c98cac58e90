export { CellcamError, type ErrorCode } from './errors';
export type { Device, NdArray, Precision } from './options';
export { HPA, datasetSpec, readDatasetSpec, type ChannelSpec, type DatasetSpec } from './data/dataset_spec';
export { dumpImages, type DumpOptions, type DumpProgress, type DumpResult } from './data/dump';
export {
  inspectFile,
  inspectFiles,
  type InspectManyOptions,
  type InspectOptions,
  type Inspection,
} from './data/inspect';
export type { FileReport, Hdf5Report, IdComparison, LabelBalance, Listing, TableReport } from './data/inspect_report';
export { readLabels, type LabelOptions, type LabelTable } from './data/labels';
export { mergeLabels, type MergedInput, type MergeOptions, type MergeResult } from './data/merge_labels';
export { resizeImage } from './data/resize';
export type { DType, TensorData, Weights, WeightTensor } from './data/weights/tensors';
export { listWeights, readWeights, writeWeights, type ReadOptions, type TensorOutline } from './data/weights/weights';
export { stratifiedFolds } from './folds/stratification';
export { f1Samples } from './metrics/f1';
export { averagePrecision, meanAveragePrecision } from './metrics/average_precision';
export { segmentationScore, type SegmentationScore } from './metrics/segmentation_score';
export { withinFieldAuc } from './metrics/localisation';
export { decodeMask, encodeMask } from './cells/run_lengths';
export { Segmenter, type HpaSegmenterOptions, type SegmenterOptions, type SegmentOptions } from './cells/segmenter';
export { labelCells, type Instances, type LabelCellsOptions } from './cells/label_cells';
export { intersectCams, makeCam, type CellPrediction, type IntersectionOptions } from './cells/cam_intersection';
export {
  cellMap,
  type CellDetection,
  type CellInstance,
  type CellMapOptions,
  type CellMapResult,
  type CellMask,
  type PrecisionRecall,
  type DetectionOutcome,
} from './metrics/cell_map';
export { listBackbones, trainingMemory, type BackboneInfo, type TrainingMemory } from './model/backbones';
export { ComboLoss, type ComboLossOptions } from './model/combo_loss';
export { PuzzleCam, type ForwardOptions, type Gradients, type PuzzleCamOptions } from './model/puzzle_cam';
export {
  augmentWith,
  sampleAugmentation,
  type AugmentationLevel,
  type AugmentationOptions,
  type AugmentationStep,
  type GivenStep,
  type SampleOptions,
} from './training/augmentation';
export { type Preview, type PreviewOptions, previewAugmentation } from './training/preview';
export { ReduceLrOnPlateau } from './training/plateau';
export { sampleWeights } from './training/sample_weights';
export { Trainer, type Batch, type EpochOptions, type TrainerOptions } from './training/trainer';
export { trainFolds } from './training/train_folds';
export type { TrainEvent, TrainOptions } from './training/plan';
export { planTraining, type FoldOutline, type TrainingOutline } from './training/outline';
export type { EpochMetrics, EpochRecord } from './report/curves';
export { Predictor, type Prediction, type PredictorOptions } from './inference/predictor';
export {
  segmentFields,
  type MaskFormat,
  type SegmentFieldsOptions,
  type SegmentFieldsResult,
} from './inference/segment_fields';
export { predictCells, type PredictOptions, type PredictResult } from './inference/predict';
export { mergePredictions, type CellFormat, type TableOptions, type TablesResult } from './inference/prediction_tables';
export {
  evaluatePredictions,
  type CellEvaluation,
  type EvaluateOptions,
  type Evaluation,
  type ImageEvaluation,
} from './inference/evaluate';
export { writeReport, type ReportOptions, type ReportResult } from './inference/report';
export { generateOof, type OofOptions, type OofProgress, type OofResult } from './inference/oof';
