import { native, nativeAsync, type BackboneInfo, type TrainingMemory } from '../native';
import { invalidArgument, requireInteger } from '../options';

export type { BackboneInfo, TrainingMemory } from '../native';

/** Every backbone, in the order of their names. */
export function listBackbones(): BackboneInfo[] {
  return native((a) => a.backbones());
}

/** @throws CellcamError ERR_INVALID_ARG that lists the known names */
export function findBackbone(name: string): BackboneInfo {
  const all = listBackbones();
  const found = all.find((info) => info.name === name);
  if (found === undefined) throw invalidArgument(`one of ${all.map((info) => info.name).join(', ')}`, 'backbone', name);
  return found;
}

/**
 * What a training step of a backbone needs on a GPU, by counting what a small forward pass keeps.
 * @param o.batch images a step, default 36; @param o.size their side in pixels, default 384
 */
export function trainingMemory(backbone: string, o: { batch?: number; size?: number } = {}): Promise<TrainingMemory> {
  const batch = requireInteger(o.batch ?? 36, 'batch', 1, 4096);
  const size = requireInteger(o.size ?? 384, 'size', 64, 16384);
  return nativeAsync((a) => a.trainingMemory(backbone, batch, size));
}
