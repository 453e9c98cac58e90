import { existsSync } from 'node:fs';
import { fetchFromHub, isHubId } from '../data/weights/hub';
import type { Weights, WeightTensor } from '../data/weights/tensors';
import { CellcamError } from '../errors';
import type { BackboneInfo } from '../native';

const FEATURES = 'cnn1.mfeatures.';
/** Classifiers of ImageNet, by timm's names. */
const HEAD = /^(fc|head|classifier)\./;

/** The file that `--pretrained` means: a path, a hub id, or `imagenet` for the backbone's own id. */
export async function pretrainedFile(source: string, backbone: BackboneInfo, signal?: AbortSignal): Promise<string> {
  if (source === 'imagenet') return fetchFromHub(backbone.pretrained, { signal });
  return !existsSync(source) && isHubId(source) ? fetchFromHub(source, { signal }) : source;
}

/** An RGB stem for more channels: the others get the mean over red, green and blue; for fewer, the first ones stay. */
function widenStem(stem: WeightTensor, channels: number, name: string): WeightTensor {
  const [out, rgb, h, w] = stem.shape as [number, number, number, number];
  if (rgb === channels) return stem;
  if (rgb !== 3 || stem.dtype !== 'float32') {
    throw new CellcamError(
      'ERR_WEIGHTS',
      `Expected ${name} for 3 or ${channels} channels in float32 but it is for ${rgb} in ${stem.dtype}`,
    );
  }
  const from = stem.data as Float32Array;
  const area = h * w;
  const data = new Float32Array(out * channels * area);
  for (let o = 0; o < out; o++) {
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < area; i++) {
        const [r, g, b] = [0, 1, 2].map((k) => from[(o * 3 + k) * area + i]!) as [number, number, number];
        data[(o * channels + c) * area + i] = c < 3 ? [r, g, b][c]! : (r + g + b) / 3;
      }
    }
  }
  return { dtype: 'float32', shape: [out, channels, h, w], data };
}

/** timm's ImageNet weights of a backbone, under the model's names and without their classifier. */
function fromTimm(weights: Weights, { stem }: BackboneInfo, channels: number): Weights {
  const features = Object.entries(weights).filter(([name]) => !HEAD.test(name));
  return Object.fromEntries(
    features.map(([name, tensor]) => [FEATURES + name, name === stem ? widenStem(tensor, channels, name) : tensor]),
  );
}

/** Whether these are a PuzzleCam's own weights, rather than a backbone's. */
export function isWholeModel(weights: Weights): boolean {
  return Object.keys(weights).some((name) => name.startsWith('cnn1.'));
}

/** timm's weights of a backbone, its stem widened from RGB, beside the classifier that the model was initialised with. */
export function beginWith(timm: Weights, initial: Weights, backbone: BackboneInfo, channels: number): Weights {
  const kept = Object.entries(initial).filter(
    // Counters of batches are missing from files of old networks.
    ([name]) => !name.startsWith(FEATURES) || name.endsWith('.num_batches_tracked'),
  );
  return { ...Object.fromEntries(kept), ...fromTimm(timm, backbone, channels) };
}
