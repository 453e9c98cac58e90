import { pointInside, relativeDistance, type CellShape } from './cell_shape';
import type { FieldLayout } from './layout';
import { addSpot, createPlane, texture, type Plane } from './plane';
import type { RandomStream } from './random';

/** Calls `draw` for every pixel inside a cell and adds what it returns. */
export function paintCells(
  plane: Plane,
  layout: FieldLayout,
  draw: (cell: CellShape, at: number, label: number) => number,
): void {
  for (let at = 0; at < layout.labels.length; at++) {
    const label = layout.labels[at] as number;
    if (label === 0) continue;
    plane.data[at] = (plane.data[at] as number) + draw(layout.cells[label - 1] as CellShape, at, label);
  }
}

/** How much of a cell lies above a pixel, from 1 in the middle to .35 at the rim: cells are flat at their edges. */
export function thickness(fromCell: number): number {
  return 0.35 + 0.65 * Math.sqrt(Math.max(0, 1 - fromCell * fromCell));
}

/** DNA: bright grainy nuclei, darker where the nucleoli are. */
export function drawNuclei(layout: FieldLayout, random: RandomStream): Plane {
  const plane = createPlane(layout.size);
  const grain = texture(layout.size, 1.5, random);
  paintCells(plane, layout, (cell, at) =>
    (layout.fromNucleus[at] as number) < 1 ? 0.6 * cell.brightness * (1 + 0.16 * (grain.data[at] as number)) : 0,
  );
  for (const cell of layout.cells) {
    for (const { x, y, radius } of cell.nucleoli) addSpot(plane, x, y, radius, -0.28 * cell.brightness);
  }
  return plane;
}

/** ER: a net through the cytoplasm, densest at the nucleus. */
export function drawReticulum(layout: FieldLayout, random: RandomStream): Plane {
  const plane = createPlane(layout.size);
  const net = texture(layout.size, 1.1, random);
  paintCells(plane, layout, (cell, at) => {
    const fromNucleus = layout.fromNucleus[at] as number;
    if (fromNucleus < 1) return 0.05 * cell.brightness;
    const density = 0.25 + 0.75 * Math.exp(-1.5 * (fromNucleus - 1));
    const depth = thickness(layout.fromCell[at] as number);
    return 0.75 * cell.brightness * density * depth * Math.max(0.1, 1 + 0.35 * (net.data[at] as number));
  });
  return plane;
}

/** One bent filament, from the given point and direction until it leaves the cell. */
function drawFilament(plane: Plane, cell: CellShape, start: { x: number; y: number }, random: RandomStream): void {
  const step = 0.7;
  let { x, y } = start;
  let angle = Math.atan2(y - cell.nucleus.y, x - cell.nucleus.x) + 0.5 * random.normal();
  const bend = 0.04 * random.normal();
  const amplitude = 0.13 * cell.brightness * random.uniform(0.6, 1.2);
  for (let i = 0; i < 3 * cell.body.radius && relativeDistance(cell.body, x, y) < 0.96; i++) {
    addSpot(plane, x, y, 0.6, relativeDistance(cell.nucleus, x, y) < 1 ? 0.15 * amplitude : amplitude);
    angle += bend + 0.06 * random.normal();
    x += step * Math.cos(angle);
    y += step * Math.sin(angle);
  }
}

/** Microtubules: filaments from around the nucleus outwards, over a faint haze. */
export function drawMicrotubules(layout: FieldLayout, random: RandomStream): Plane {
  const plane = createPlane(layout.size);
  paintCells(plane, layout, (cell, at) => {
    const share = (layout.fromNucleus[at] as number) < 1 ? 0.02 : 0.08;
    return share * cell.brightness * thickness(layout.fromCell[at] as number);
  });
  for (const cell of layout.cells) {
    const filaments = random.integer(28, 44);
    for (let i = 0; i < filaments; i++) drawFilament(plane, cell, pointInside(cell.body, 0.75, random), random);
  }
  return plane;
}
