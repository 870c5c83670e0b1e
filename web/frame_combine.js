// In the canvas's own nodes (not Nodes 2.0), an animated picture gets 50 pixels of a node's height, whatever its size:
// a Frame Combine that was added by hand grows after its first run. One of a saved graph keeps its size.

import { app } from "../../scripts/app.js";

const ROOM = 300;

app.registerExtension({
    name: "MicroCinema.FrameCombine",
    nodeCreated(node) {
        if (node.comfyClass !== "MicroCinemaFrameCombine") return;
        const { onConfigure, onExecuted } = node;
        let isSized = false;
        node.onConfigure = function (...given) {
            onConfigure?.apply(this, given);
            isSized = true;
        };
        node.onExecuted = function (...given) {
            onExecuted?.apply(this, given);
            const height = this.computeSize()[1] + ROOM;
            if (!isSized && !LiteGraph.vueNodesMode) this.setSize([this.size[0], Math.max(this.size[1], height)]);
            isSized = true;
        };
    },
});
