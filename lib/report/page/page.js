/* The report's page: draws what the JSON in #data holds. Runs from file://, asks no server for anything. */
/* global echarts, document, window, Image, atob */
(() => {
  'use strict';

  const data = JSON.parse(document.getElementById('data').textContent);
  const main = document.querySelector('main');
  const nav = document.querySelector('nav');

  /** An element with attributes and children; `on` holds listeners, `text` the text. */
  function make(tag, { on = {}, text, ...attributes } = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
    for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
    if (text !== undefined) element.textContent = text;
    element.append(...children.filter((child) => child !== undefined));
    return element;
  }

  const number = (v, digits = 3) => (v === null || v === undefined || Number.isNaN(v) ? '–' : v.toFixed(digits));

  function section(id, title, note) {
    const element = make('section', { id, 'aria-label': title }, make('h2', { text: title }));
    if (note) element.append(make('p', { class: 'note', text: note }));
    main.append(element);
    nav.append(make('a', { href: `#${id}`, text: title }));
    return element;
  }

  function save(name, url) {
    const link = make('a', { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  }

  /** Buttons of which one is pressed. */
  function choices(label, names, choose) {
    const bar = make('div', { class: 'bar', role: 'group', 'aria-label': label });
    const buttons = names.map((name, i) =>
      make('button', { type: 'button', text: name, 'aria-pressed': 'false', on: { click: () => press(i) } }),
    );
    function press(i) {
      buttons.forEach((button, k) => button.setAttribute('aria-pressed', String(k === i)));
      choose(i);
    }
    bar.append(...buttons);
    return { bar, press };
  }

  const charts = [];
  function chart(parent, name, description) {
    const box = make('div', { class: 'chart', role: 'img', 'aria-label': description });
    const own = { show: () => undefined };
    const png = make('button', {
      type: 'button',
      text: 'Save as PNG',
      on: { click: () => save(`${name}.png`, own.drawing.getDataURL({ pixelRatio: 2, backgroundColor: '#fff' })) },
    });
    parent.append(box, make('div', { class: 'bar' }, png));
    own.drawing = echarts.init(box, null, { renderer: 'canvas' });
    own.show = (option) => own.drawing.setOption({ animation: false, ...option }, true);
    charts.push(own.drawing);
    return own;
  }
  window.addEventListener('resize', () => charts.forEach((drawing) => drawing.resize()));

  const PALETTE = ['#1f5fae', '#d9622b', '#2e8b57', '#8e44ad', '#b8860b', '#c2185b', '#00838f', '#5d4037'];
  const plain = (name, more = {}) => ({ type: 'value', name, nameLocation: 'middle', nameGap: 34, ...more });

  function drawTraining() {
    if (data.training.length === 0) return;
    const element = section('training', 'Training', 'Solid: validation. Dashed: training. One colour a fold.');
    const metrics = [
      ['Loss', 'loss'],
      ['F1', 'f1'],
      ['Mean average precision', 'mAP'],
      ['Learning rate', 'lr'],
    ];
    const { bar, press } = choices(
      'What is drawn',
      metrics.map(([name]) => name),
      (i) => show(metrics[i]),
    );
    element.append(bar);
    const own = chart(element, 'training', 'Course of the training, a line a fold');
    function show([name, key]) {
      const series = data.training.flatMap(({ fold, stage, epochs }, k) => {
        const line = (part, values, type) => ({
          name: `fold ${fold}, ${stage}${part}`,
          type: 'line',
          data: values,
          showSymbol: values.length < 30,
          color: PALETTE[k % PALETTE.length],
          lineStyle: { type, width: 2 },
        });
        if (key === 'lr')
          return [
            line(
              '',
              epochs.map((e) => [e.epoch, e.lr]),
              'solid',
            ),
          ];
        return [
          line(
            ' validation',
            epochs.map((e) => [e.epoch, e.valid[key]]),
            'solid',
          ),
          line(
            ' training',
            epochs.map((e) => [e.epoch, e.train[key]]),
            'dashed',
          ),
        ];
      });
      own.show({
        tooltip: { trigger: 'axis' },
        legend: { type: 'scroll', top: 0 },
        grid: { left: 64, right: 20, top: 40, bottom: 46 },
        xAxis: plain('Epoch', { minInterval: 1, min: 1 }),
        yAxis: plain(name, { nameGap: 48, scale: true }),
        series,
      });
    }
    press(0);
  }

  function drawFolds() {
    if (!data.folds) return;
    const { sizes, counts } = data.folds;
    const element = section(
      'folds',
      'Folds',
      `Images of each class in each fold's validation part; ${sizes.join(', ')} images in all.`,
    );
    const own = chart(element, 'folds', 'Images of each class in each fold');
    own.show({
      tooltip: { trigger: 'axis', axisPointer: { type: 'shadow' } },
      legend: { top: 0 },
      grid: { left: 60, right: 20, top: 36, bottom: 130 },
      xAxis: { type: 'category', data: data.classes, axisLabel: { rotate: 50, width: 120, overflow: 'truncate' } },
      yAxis: plain('Images', { nameGap: 44 }),
      series: sizes.map((_, f) => ({
        name: `fold ${f + 1}`,
        type: 'bar',
        data: counts[f],
        color: PALETTE[f % PALETTE.length],
      })),
    });
  }

  function drawScores() {
    const { evaluation } = data;
    if (!evaluation) return;
    const { cells, imageLevel } = evaluation;
    const said = [];
    if (cells) said.push(`Mean average precision of cells ${number(cells.mAP)}.`);
    if (imageLevel) said.push(`Of images ${number(imageLevel.mAP)}; F1 of images at .5 ${number(imageLevel.f1)}.`);
    const element = section('scores', 'Scores', said.join(' '));
    const head = make('tr', {}, make('th', { scope: 'col', text: 'Class' }));
    const columns = [
      ...(cells
        ? [
            ['Cell AP', (c) => number(cells.ap[c])],
            ['True cells', (c) => String(cells.instances[c])],
          ]
        : []),
      ...(imageLevel ? [['Image AP', (c) => number(imageLevel.ap[c])]] : []),
    ];
    head.append(...columns.map(([name]) => make('th', { scope: 'col', text: name })));
    const rows = data.classes.map((name, c) =>
      make('tr', {}, make('th', { scope: 'row', text: name }), ...columns.map(([, of]) => make('td', { text: of(c) }))),
    );
    element.append(
      make('div', { class: 'scroll' }, make('table', {}, make('thead', {}, head), make('tbody', {}, ...rows))),
    );
    if (!cells) return;
    const shown = data.classes
      .map((name, c) => ({ name, c }))
      .filter(({ c }) => cells.curves[c].recall.length > 0 && cells.instances[c] > 0);
    element.append(make('h3', { text: 'Precision and recall' }));
    const own = chart(element, 'precision-recall', 'Precision over recall, a line a class');
    own.show({
      tooltip: {
        trigger: 'item',
        formatter: (p) => `${p.seriesName}<br>recall ${number(p.value[0])}, precision ${number(p.value[1])}`,
      },
      legend: { type: 'scroll', top: 0 },
      grid: { left: 60, right: 20, top: 40, bottom: 46 },
      xAxis: plain('Recall', { min: 0, max: 1 }),
      yAxis: plain('Precision', { min: 0, max: 1, nameGap: 40 }),
      series: shown.map(({ name, c }, k) => ({
        name,
        type: 'line',
        showSymbol: false,
        color: PALETTE[k % PALETTE.length],
        data: cells.curves[c].recall.map((r, i) => [r, cells.curves[c].precision[i]]),
      })),
    });
    drawConfusion(element, cells.confusion);
  }

  /** The confusion as a picture: the table, drawn. */
  function confusionPicture(rows, columns, countOf, totalOf) {
    const [left, top, cell, scale] = [260, 210, 44, 2];
    const [width, height] = [left + cell * columns.length + 20, top + cell * rows.length + 20];
    const canvas = make('canvas', { width: scale * width, height: scale * height });
    const context = canvas.getContext('2d');
    context.scale(scale, scale);
    context.fillStyle = '#fff';
    context.fillRect(0, 0, width, height);
    context.font = '13px sans-serif';
    context.textBaseline = 'middle';
    columns.forEach(({ name }, k) => {
      context.save();
      context.translate(left + cell * (k + 0.5), top - 8);
      context.rotate(-Math.PI / 2);
      context.fillStyle = '#22262b';
      context.fillText(name, 0, 0);
      context.restore();
    });
    rows.forEach((row, i) => {
      context.fillStyle = '#22262b';
      context.textAlign = 'right';
      context.fillText(row.name, left - 8, top + cell * (i + 0.5));
      context.textAlign = 'center';
      columns.forEach((column, k) => {
        const n = countOf(row, column);
        const share = n / totalOf(row);
        context.fillStyle = `rgba(31, 95, 174, ${share})`;
        context.fillRect(left + cell * k + 1, top + cell * i + 1, cell - 2, cell - 2);
        context.fillStyle = share > 0.55 ? '#fff' : '#22262b';
        if (n > 0) context.fillText(String(n), left + cell * (k + 0.5), top + cell * (i + 0.5));
      });
    });
    return canvas.toDataURL('image/png');
  }

  function drawConfusion(parent, confusion) {
    const named = [...data.classes, 'no such cell'].map((name, c) => ({ name, c }));
    const rows = named.filter(({ c }) => confusion[c]?.some((n) => n > 0));
    if (rows.length === 0) return;
    const columns = named.filter(({ c }) => rows.some((row) => confusion[row.c][c] > 0));
    const countOf = (row, column) => confusion[row.c][column.c];
    const totalOf = (row) => confusion[row.c].reduce((sum, n) => sum + n, 0);
    const square = (row, column) => {
      const [n, total] = [countOf(row, column), totalOf(row)];
      const ink = n / total > 0.55 ? '#fff' : '#22262b';
      return make('td', {
        text: n === 0 ? '' : String(n),
        style: `background: rgba(31, 95, 174, ${(n / total).toFixed(3)}); color: ${ink}`,
        title: `${row.name} seen as ${column.name}: ${n} of ${total}`,
      });
    };
    const turned = ({ name }) => make('th', { scope: 'col', class: 'turned' }, make('span', { text: name }));
    const head = make('thead', {}, make('tr', {}, make('td'), ...columns.map(turned)));
    const line = (row) =>
      make('tr', {}, make('th', { scope: 'row', text: row.name }), ...columns.map((column) => square(row, column)));
    const caption = make('caption', {
      text: 'Rows: true class of a cell. Columns: the likeliest class of the cell that was found there.',
    });
    const table = make('table', { class: 'confusion' }, caption, head, make('tbody', {}, ...rows.map(line)));
    const png = make('button', {
      type: 'button',
      text: 'Save as PNG',
      on: { click: () => save('confusion.png', confusionPicture(rows, columns, countOf, totalOf)) },
    });
    parent.append(
      make('h3', { text: 'Confusion of locations' }),
      make('div', { class: 'scroll' }, table),
      make('div', { class: 'bar' }, png),
    );
  }

  // Gallery

  const SVG = 'http://www.w3.org/2000/svg';
  const state = { field: 0, cell: -1, channels: data.channels.map(() => true), cam: -1, outlines: true };
  const view = {};
  const pixels = new Map(); // of images by their address, once they are decoded

  function greyOf(address) {
    if (!pixels.has(address)) {
      pixels.set(
        address,
        new Promise((resolve, reject) => {
          const image = new Image();
          image.onload = () => {
            const canvas = make('canvas', { width: image.width, height: image.height });
            const context = canvas.getContext('2d', { willReadFrequently: true });
            context.drawImage(image, 0, 0);
            resolve(context.getImageData(0, 0, image.width, image.height).data);
          };
          image.onerror = () => reject(new Error('an image of the report is damaged'));
          image.src = address;
        }),
      );
    }
    return pixels.get(address);
  }

  /** Bilinear value of a small map at a pixel of the picture. */
  function sampler(map, h, w, size) {
    return (x, y) => {
      const u = Math.min(Math.max(((x + 0.5) * w) / size - 0.5, 0), w - 1);
      const v = Math.min(Math.max(((y + 0.5) * h) / size - 0.5, 0), h - 1);
      const [i, j] = [Math.floor(u), Math.floor(v)];
      const [i2, j2] = [Math.min(i + 1, w - 1), Math.min(j + 1, h - 1)];
      const [p, q] = [u - i, v - j];
      const top = map[j * w + i] * (1 - p) + map[j * w + i2] * p;
      const bottom = map[j2 * w + i] * (1 - p) + map[j2 * w + i2] * p;
      return (top * (1 - q) + bottom * q) / 255;
    };
  }

  function camOf(field) {
    if (!field.cams || state.cam < 0) return undefined;
    const bytes = Uint8Array.from(atob(field.cams.data), (c) => c.charCodeAt(0));
    const { h, w } = field.cams;
    return sampler(bytes.subarray(state.cam * h * w, (state.cam + 1) * h * w), h, w, data.size);
  }

  async function paint() {
    const field = data.fields[state.field];
    const planes = await Promise.all(field.channels.map(greyOf));
    if (data.fields[state.field] !== field) return; // another was chosen meanwhile
    const size = data.size;
    const context = view.canvas.getContext('2d');
    const image = context.createImageData(size, size);
    const cam = camOf(field);
    for (let y = 0, i = 0; y < size; y++) {
      for (let x = 0; x < size; x++, i += 4) {
        let [r, g, b] = [0, 0, 0];
        for (let c = 0; c < planes.length; c++) {
          if (!state.channels[c]) continue;
          const v = planes[c][i];
          const tint = data.channels[c].tint;
          r += v * tint[0];
          g += v * tint[1];
          b += v * tint[2];
        }
        if (cam) {
          const heat = cam(x, y);
          const cover = 0.7 * Math.sqrt(heat);
          r = r * (1 - cover) + 255 * Math.min(1, 0.35 + 1.3 * heat) * cover;
          g = g * (1 - cover) + 255 * Math.min(1, 1.15 * heat ** 1.5) * cover;
          b = b * (1 - cover) + 255 * Math.max(0, 1.6 * heat - 1) * cover;
        }
        image.data[i] = r;
        image.data[i + 1] = g;
        image.data[i + 2] = b;
        image.data[i + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    view.canvas.dataset.painted = `${state.field} ${state.channels.map(Number).join('')} ${state.cam}`;
  }

  function showCell(place) {
    const field = data.fields[state.field];
    const cell = field.cells[place];
    view.info.replaceChildren();
    if (!cell) {
      view.info.append(
        make('p', { class: 'note', text: 'Point at a cell, or reach it with Tab, to see its probabilities.' }),
      );
      return;
    }
    view.info.append(make('h3', { text: `Cell ${cell.cellId} of ${field.id}` }));
    const bars = make('div', { class: 'bars' });
    const order = data.classes.map((_, c) => c).sort((a, b) => cell.probabilities[b] - cell.probabilities[a]);
    for (const c of order) {
      const p = cell.probabilities[c];
      const given = field.labels?.includes(c);
      const steps = cell.step1 ? ` (step 1: ${number(cell.step1[c])}, step 2: ${number(cell.step2[c])})` : '';
      bars.append(
        make('span', { class: given ? 'given' : undefined, text: data.classes[c] + (given ? ' ●' : '') }),
        make(
          'span',
          { class: 'track', title: `${number(p)}${steps}` },
          make('span', { class: 'fill', style: `display: block; width: ${(100 * p).toFixed(1)}%` }),
        ),
        make('span', { text: number(p) }),
      );
    }
    view.info.append(bars);
    if (field.labels) view.info.append(make('p', { class: 'note', text: '● given as a label of the whole field' }));
  }

  function choose(place) {
    state.cell = place;
    [...view.svg.children].forEach((path, i) => path.setAttribute('aria-pressed', String(i === place)));
    showCell(place);
  }

  function outlines() {
    const field = data.fields[state.field];
    view.svg.replaceChildren(
      ...field.cells.map((cell, i) => {
        const path = document.createElementNS(SVG, 'path');
        const top = cell.probabilities.indexOf(Math.max(...cell.probabilities));
        const attributes = {
          d: cell.path,
          tabindex: 0,
          role: 'button',
          'aria-pressed': 'false',
          'aria-label': `cell ${cell.cellId}: ${data.classes[top]} ${number(cell.probabilities[top], 2)}`,
        };
        for (const [name, value] of Object.entries(attributes)) path.setAttribute(name, value);
        path.addEventListener('mouseenter', () => showCell(i));
        path.addEventListener('mouseleave', () => showCell(state.cell));
        path.addEventListener('focus', () => showCell(i));
        path.addEventListener('click', () => choose(state.cell === i ? -1 : i));
        path.addEventListener('keydown', (event) => {
          if (event.key !== 'Enter' && event.key !== ' ') return;
          event.preventDefault();
          choose(state.cell === i ? -1 : i);
        });
        return path;
      }),
    );
    view.svg.style.display = state.outlines ? '' : 'none';
  }

  function open(place, cellId) {
    state.field = (place + data.fields.length) % data.fields.length;
    const field = data.fields[state.field];
    view.select.value = String(state.field);
    view.labels.textContent = field.labels
      ? `Given labels: ${field.labels.map((c) => data.classes[c]).join(', ') || 'none'}`
      : '';
    outlines();
    choose(field.cells.findIndex((cell) => cell.cellId === cellId));
    void paint();
  }

  /** The picture with its outlines as it is seen. */
  function savePicture() {
    const field = data.fields[state.field];
    const scale = 2;
    const canvas = make('canvas', { width: scale * data.size, height: scale * data.size });
    const context = canvas.getContext('2d');
    context.drawImage(view.canvas, 0, 0, canvas.width, canvas.height);
    if (state.outlines) {
      context.scale(scale, scale);
      field.cells.forEach((cell, i) => {
        context.strokeStyle = i === state.cell ? '#ffd166' : '#fff';
        context.lineWidth = i === state.cell ? 1.6 : 0.8;
        context.stroke(new window.Path2D(cell.path));
      });
    }
    save(`${field.id}.png`, canvas.toDataURL('image/png'));
  }

  function toggle(text, get, set) {
    const button = make('button', { type: 'button', text, 'aria-pressed': String(get()) });
    button.addEventListener('click', () => {
      set(!get());
      button.setAttribute('aria-pressed', String(get()));
    });
    return button;
  }

  function drawGallery() {
    if (data.fields.length === 0) return;
    const element = section(
      'gallery',
      'Fields and cells',
      'Channels are brightened for the eye, each by itself. The activation maps are coarse: one of their values covers many pixels.',
    );
    view.select = make(
      'select',
      { 'aria-label': 'Field', on: { change: () => open(Number(view.select.value)) } },
      ...data.fields.map(({ id }, i) => make('option', { value: i, text: id })),
    );
    const step = (text, by) => make('button', { type: 'button', text, on: { click: () => open(state.field + by) } });
    element.append(make('div', { class: 'bar' }, step('Previous', -1), view.select, step('Next', 1)));
    const channels = make('div', { class: 'bar', role: 'group', 'aria-label': 'Channels' });
    channels.append(
      ...data.channels.map(({ name }, c) =>
        toggle(
          name,
          () => state.channels[c],
          (on) => {
            state.channels[c] = on;
            void paint();
          },
        ),
      ),
      toggle(
        'outlines',
        () => state.outlines,
        (on) => {
          state.outlines = on;
          outlines();
          choose(state.cell);
        },
      ),
    );
    if (data.fields.some(({ cams }) => cams)) {
      const cams = make('select', { 'aria-label': 'Activation map', on: { change: () => { state.cam = Number(cams.value); void paint(); } } }, make('option', { value: -1, text: 'no activation map' }), ...data.classes.map((name, c) => make('option', { value: c, text: name }))); // prettier-ignore
      channels.append(cams);
    }
    channels.append(make('button', { type: 'button', text: 'Save as PNG', on: { click: savePicture } }));
    element.append(channels);
    view.canvas = make('canvas', { width: data.size, height: data.size });
    view.svg = document.createElementNS(SVG, 'svg');
    view.svg.setAttribute('viewBox', `0 0 ${data.size} ${data.size}`);
    view.info = make('div', { 'aria-live': 'polite' });
    view.labels = make('p', { class: 'note' });
    element.append(
      make(
        'div',
        { class: 'gallery' },
        make('div', {}, make('div', { class: 'stage' }, view.canvas, view.svg), view.labels),
        view.info,
      ),
    );
    open(0);
  }

  function drawLists() {
    const lists = [
      ['Most confident', data.lists.confident, (e) => `${data.classes[e.classId]} ${number(e.p, 2)}`],
      [
        'Most doubtful',
        data.lists.doubtful,
        (e) => `${data.classes[e.classId]} ${number(e.p, 2)} or ${data.classes[e.other]} ${number(e.q, 2)}`,
      ],
      [
        'Worst disagreements with given labels',
        data.lists.disagreements,
        (e) =>
          e.given
            ? `labelled ${data.classes[e.classId]}, at most ${number(e.p, 2)}`
            : `not labelled ${data.classes[e.classId]}, yet ${number(e.p, 2)}`,
      ],
    ].filter(([, entries]) => entries.length > 0);
    if (lists.length === 0) return;
    const element = section('lists', 'Cells to look at', 'A click opens the cell in the gallery above.');
    const columns = make('div', { class: 'lists' });
    for (const [title, entries, text] of lists) {
      const items = entries.map((entry) => {
        const place = data.fields.findIndex(({ id }) => id === entry.id);
        const button = make('button', { type: 'button', text: `${entry.id}, cell ${entry.cellId}: ${text(entry)}` });
        if (place < 0) button.disabled = true;
        button.addEventListener('click', () => {
          open(place, entry.cellId);
          document.getElementById('gallery').scrollIntoView();
        });
        return make('li', {}, button);
      });
      columns.append(make('div', {}, make('h3', { text: title }), make('ol', {}, ...items)));
    }
    element.append(columns);
  }

  drawScores();
  drawGallery();
  drawLists();
  drawTraining();
  drawFolds();
  document.body.dataset.ready = 'true';
})();
