// The editor of relations: one row of native controls for each. `props.value` is what page_settings.Editor holds.
const root = element.querySelector(".lts-editor");
const label = (part, row) => `${part} of relation ${row + 1}`;

function node(tag, attributes = {}, ...children) {
	const made = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
	made.append(...children);
	return made;
}

function change(rows) {
	props.value = { ...props.value, rows, edited: true };
	render();
	trigger("input");
}

function choice(words, value, key, name, put) {
	const select = node("select", { "aria-label": name, "data-key": key });
	const listed = value && !words.includes(value) ? [value, ...words] : words;
	if (!value) select.append(node("option", { value: "" }, "choose"));
	for (const word of listed) {
		const option = node("option", { value: word }, word);
		option.selected = word === value;
		select.append(option);
	}
	select.addEventListener("change", () => put(select.value));
	return select;
}

function typed(value, key, name, put) {
	const input = node("input", {
		type: "text", "aria-label": name, "data-key": key, list: "lts-objects", maxlength: 60, placeholder: "object",
		autocomplete: "off"
	});
	input.value = value;
	input.addEventListener("change", () => put(input.value.trim().toLowerCase()));
	return input;
}

function row(words, number, rows) {
	const put = (column) => (value) =>
		change(rows.map((one, i) => (i === number ? one.map((word, j) => (j === column ? value : word)) : one)));
	const noun = (column, part) => props.free
		? typed(words[column], `${number}-${column}`, label(part, number), put(column))
		: choice(props.value.nouns, words[column], `${number}-${column}`, label(part, number), put(column));
	const remove = node("button", { type: "button", "aria-label": `Remove relation ${number + 1}`, class: "lts-remove", "data-key": `${number}-remove` }, "×");
	remove.addEventListener("click", () => change(rows.filter((_, i) => i !== number)));
	return node("div", { class: "lts-row", role: "group", "aria-label": `Relation ${number + 1}` },
		noun(0, "Subject"), choice(props.predicates, words[1], `${number}-1`, label("Predicate", number), put(1)),
		noun(2, "Object"), remove);
}

function render() {
	const value = props.value || { rows: [], nouns: [] };
	const rows = value.rows || [];
	const focused = root.contains(document.activeElement) ? document.activeElement.dataset.key : null;
	root.replaceChildren();
	if (props.free) {
		root.append(node("datalist", { id: "lts-objects" }, ...value.nouns.map((noun) => node("option", { value: noun }))));
	}
	rows.forEach((words, number) => root.append(row(words, number, rows)));
	if (!rows.length) {
		const text = value.nouns.length || props.free ? props.empty : props.blank;
		root.append(node("p", { class: "lts-none" }, text));
	}
	const actions = node("div", { class: "lts-actions" });
	if (rows.length < props.most && (props.free || value.nouns.length > 1)) {
		const add = node("button", { type: "button", class: "lts-link", "data-key": "add" }, "+ Add a relation");
		const fresh = props.free ? ["", "left of", rows.length ? rows[rows.length - 1][2] : ""] : [value.nouns[0], "left of", value.nouns[1]];
		add.addEventListener("click", () => change([...rows, fresh]));
		actions.append(add);
	}
	if (!props.free && value.edited) {
		const again = node("button", { type: "button", class: "lts-link", "data-key": "again" }, "Read the prompt again");
		again.addEventListener("click", () => {
			props.value = { ...props.value, rows: [], edited: false };
			render();
			trigger("clear");
		});
		actions.append(again);
	}
	root.append(actions);
	if (focused) (root.querySelector(`[data-key="${focused}"]`) || root.querySelector("button"))?.focus();
}

render();
watch("value", render); // calls it for values from the server alone
