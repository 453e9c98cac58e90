import { nativeAsync, type LossValue, type LossWeights, type NativeOutput } from '../native';
import { invalidArgument, requireNdArray, requireNumber, type NdArray } from '../options';

export interface ComboLossOptions {
  /** Weight of the classification loss of whole images. Default 1. */
  alpha?: number;
  /** Weight of the classification loss of the merged tiles; 0 leaves the term out. Default 1. */
  beta?: number;
  /** Weight of the distance between the two activation maps; 0 leaves the term out. Default 0.5. */
  gamma?: number;
}

/** Fills in and checks the weights of a ComboLoss. */
export function lossWeights(o: ComboLossOptions = {}): LossWeights {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'loss', o);
  return {
    alpha: requireNumber(o.alpha ?? 1, 'alpha', 0),
    beta: requireNumber(o.beta ?? 1, 'beta', 0),
    gamma: requireNumber(o.gamma ?? 0.5, 'gamma', 0),
  };
}

/** Gradients of the total by each input, of the inputs' shapes. */
export type ComboLossGradients = Partial<NativeOutput>;

/**
 * α·BCE(logits) + β·BCE(tiled logits) + γ·mean|maps − tiled maps|, the loss of Puzzle-CAM (arXiv 2101.11253) with binary
 * cross-entropy over logits, each term a mean over its entries.
 */
export class ComboLoss {
  readonly weights: Readonly<LossWeights>;

  constructor(o?: ComboLossOptions) {
    this.weights = lossWeights(o);
  }

  /**
   * @param output what PuzzleCam.forward gives: logits (B, K), maps (B, K, h, w) and, for the second and third terms,
   *   tiledLogits (B, K) and tiledMaps (B, K, h, w), all float32
   * @param targets (B, K), 0 or 1
   * @returns the three unweighted terms (0 where left out), their weighted total, and its gradients
   * @throws CellcamError ERR_INVALID_ARG, also when the two maps differ in size
   */
  async compute(
    output: { logits: NdArray<Float32Array> } & Partial<NativeOutput>,
    targets: NdArray<Float32Array | Uint8Array>,
  ): Promise<LossValue & { gradients: ComboLossGradients }> {
    const logits = requireNdArray(output?.logits, 'output.logits', ['Float32Array'], ['B', 'K']);
    const [b, k] = logits.shape as [number, number];
    requireNdArray(targets, 'targets', ['Float32Array', 'Uint8Array'], [b, k]);
    const tiled = output.tiledLogits !== undefined;
    if (tiled) requireNdArray(output.tiledLogits, 'output.tiledLogits', ['Float32Array'], [b, k]);
    if (tiled && this.weights.gamma > 0) {
      requireNdArray(output.maps, 'output.maps', ['Float32Array'], [b, k, 'h', 'w']);
      requireNdArray(output.tiledMaps, 'output.tiledMaps', ['Float32Array'], [b, k, 'h', 'w']);
    }
    return nativeAsync((a) => a.comboLoss(output as NativeOutput, targets, this.weights));
  }
}
