import { pointInside, relativeDistance, type CellShape } from './cell_shape';
import type { FieldLayout } from './layout';
import { addSpot, createPlane, texture, type Plane } from './plane';
import { PLACE } from './plan';
import type { RandomStream } from './random';
import { paintCells, thickness } from './stains';

/** Brightness of the protein at a pixel of an expressing cell; `grain` is texture of mean 0, distances are relative. */
type Pattern = (cell: CellShape, fromNucleus: number, fromCell: number, grain: number) => number;

/** A line of about 1.3 pixels at an outline; `distance` in pixels from it. */
function line(distance: number): number {
  return Math.exp(-(distance * distance) / (2 * 1.3 * 1.3));
}

const PATTERNS: Partial<Record<number, Pattern>> = {
  [PLACE.nucleoplasm]: (_cell, fromNucleus, _fromCell, grain) => (fromNucleus < 0.97 ? 0.42 * (1 + 0.2 * grain) : 0),
  [PLACE.nuclearMembrane]: (cell, fromNucleus, _fromCell, grain) =>
    0.85 * line((fromNucleus - 1) * cell.nucleus.radius) * (1 + 0.15 * grain) + (fromNucleus < 1 ? 0.07 : 0),
  [PLACE.plasmaMembrane]: (cell, _fromNucleus, fromCell, grain) =>
    0.8 * line((1 - fromCell) * cell.body.radius - 1) * (1 + 0.2 * grain) + 0.05,
  [PLACE.cytosol]: (_cell, fromNucleus, fromCell, grain) =>
    fromNucleus < 1 ? 0.06 : 0.6 * thickness(fromCell) * (1 + 0.15 * grain),
};

/** Nucleoli light up if the protein is there, and stay dark in a nucleoplasm that is bright around them. */
function drawNucleoli(plane: Plane, cell: CellShape, amplitude: number): void {
  for (const { x, y, radius } of cell.nucleoli) addSpot(plane, x, y, radius, amplitude);
}

function drawVesicles(plane: Plane, cell: CellShape, expression: number, random: RandomStream): void {
  for (let left = random.integer(28, 48); left > 0; ) {
    const { x, y } = pointInside(cell.body, 0.92, random);
    if (relativeDistance(cell.nucleus, x, y) < 1.1) continue;
    addSpot(plane, x, y, random.uniform(0.9, 1.6), expression * random.uniform(0.5, 1));
    left--;
  }
}

/** Punctate places are drawn spot by spot, the others pixel by pixel. */
function drawSpots(plane: Plane, cell: CellShape, places: number[], expression: number, random: RandomStream): void {
  if (places.includes(PLACE.nucleoli)) drawNucleoli(plane, cell, 1.6 * expression);
  else if (places.includes(PLACE.nucleoplasm)) drawNucleoli(plane, cell, -0.4 * expression);
  if (places.includes(PLACE.vesicles)) drawVesicles(plane, cell, expression, random);
}

/** The protein of interest: the pattern of each cell's places over the faint glow that every cell has. */
export function drawProtein(layout: FieldLayout, labels: number[][], random: RandomStream): Plane {
  const plane = createPlane(layout.size);
  const grain = texture(layout.size, 1.3, random);
  const expression = layout.cells.map(() => Math.min(1.35, Math.max(0.7, Math.exp(0.2 * random.normal()))));
  paintCells(plane, layout, (cell, at, label) => {
    const [nucleus, body] = [layout.fromNucleus[at] as number, layout.fromCell[at] as number];
    const places = labels[label - 1] ?? [];
    const drawn = places.reduce((sum, p) => sum + (PATTERNS[p]?.(cell, nucleus, body, grain.data[at] as number) ?? 0), 0);
    return 0.035 * cell.brightness * thickness(body) + drawn * (expression[label - 1] as number);
  });
  layout.cells.forEach((cell, i) => drawSpots(plane, cell, labels[i] ?? [], expression[i] as number, random));
  return plane;
}
