import { HPA, type DatasetSpec } from '../data/dataset_spec';
import type { RandomStream } from './random';

/** Seven of the HPA's classes that can be told apart at a low resolution, on the HPA's four channels. */
export const DEMO_SPEC: DatasetSpec = {
  ...HPA,
  classes: [
    'Nucleoplasm',
    'Nuclear membrane',
    'Nucleoli',
    'Plasma membrane',
    'Cytosol',
    'Vesicles and punctate cytosolic patterns',
    'Negative',
  ],
  negativeClass: 6,
};

/** Index of each place in DEMO_SPEC.classes. */
export const PLACE = { nucleoplasm: 0, nuclearMembrane: 1, nucleoli: 2, plasmaMembrane: 3, cytosol: 4, vesicles: 5 } as const;
export const NEGATIVE = 6;
const PLACES = Object.values(PLACE);

/** What the protein of one field does. */
export interface FieldPlan {
  /** Where the protein goes: one or two places, none if no cell makes it. */
  places: number[];
  /** The chance that a cell makes it: 1, or .5 where cells of one field differ. */
  expressing: number;
}

const NEGATIVE_SHARE = 0.18;
const TWO_PLACES_SHARE = 1 / 3;
const MIXED_SHARE = 0.6;

/** The classes in turn, each round in a new order, so that all are about equally frequent. */
function* balancedPlaces(random: RandomStream): Generator<number, never> {
  for (;;) yield* random.shuffled(PLACES);
}

function nextPlace(queue: Generator<number, never>, taken?: number): number {
  const place = queue.next().value;
  return place === taken ? nextPlace(queue, taken) : place;
}

/** Plans of all fields, in random order. */
export function planFields(fields: number, random: RandomStream): FieldPlan[] {
  const negatives = Math.round(NEGATIVE_SHARE * fields);
  const doubles = Math.round(TWO_PLACES_SHARE * (fields - negatives));
  const queue = balancedPlaces(random);
  const plans = Array.from({ length: fields }, (_, i): FieldPlan => {
    if (i < negatives) return { places: [], expressing: 0 };
    const first = nextPlace(queue);
    const places = i < negatives + doubles ? [first, nextPlace(queue, first)] : [first];
    return { places, expressing: random.chance(MIXED_SHARE) ? 0.5 : 1 };
  });
  return random.shuffled(plans);
}

/** True labels of every cell of a field, ascending; at least one cell makes the protein unless the plan has no place. */
export function labelCells(plan: FieldPlan, cells: number, random: RandomStream): number[][] {
  if (plan.places.length === 0) return Array.from({ length: cells }, () => [NEGATIVE]);
  const always = random.integer(0, cells - 1);
  return Array.from({ length: cells }, (_, cell) => {
    const makesIt = random.chance(plan.expressing) || cell === always;
    return makesIt ? [...plan.places].sort((a, b) => a - b) : [NEGATIVE];
  });
}

/** Image-level labels: all places of its cells; Negative only if no cell has any. */
export function labelImage(cells: number[][]): number[] {
  const places = [...new Set(cells.flat())].filter((place) => place !== NEGATIVE).sort((a, b) => a - b);
  return places.length > 0 ? places : [NEGATIVE];
}
