// Sliders through the steps, and pictures that are dropped anywhere on the page.
document.addEventListener("input", (event) => {
	if (!event.target.matches?.("input.lts-steps")) return;
	const frames = event.target.closest("details").querySelectorAll(".lts-step");
	frames.forEach((frame, number) => { frame.hidden = number !== Number(event.target.value); });
	event.target.setAttribute("aria-valuetext", frames[Number(event.target.value)].querySelector("p").textContent);
});
const carriesFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
document.addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
document.addEventListener("drop", (event) => {
	const input = document.querySelector("#lts-file input[type=file]");
	if (!carriesFiles(event) || event.target.closest?.("#lts-file")) return;
	event.preventDefault();
	if (!input) return;
	const files = new DataTransfer();
	files.items.add(event.dataTransfer.files[0]);
	input.files = files.files;
	input.dispatchEvent(new Event("change", { bubbles: true }));
});
