"""The inspector's JSON, as TensorRT printed it for others."""

import json

from irstd_edge.edge.engine_layers import Layer, layers_of, report_of

# github.com/NVIDIA/TensorRT issues 4020 (ResNet-18, INT8) and 3876 (YOLO, FP16), shortened.
PRINTED = """{"Layers": [{
  "Name": "Reformatting CopyNode for Input Tensor 0 to resnetv15_conv0_fwd",
  "LayerType": "Reformat",
  "Inputs": [{
    "Name": "data", "Location": "Device", "Dimensions": [1,3,224,224],
    "Format/Datatype": "Row major linear FP32"
  }],
  "Outputs": [{
    "Name": "Reformatted Input Tensor 0 to resnetv15_conv0_fwd", "Location": "Device",
    "Dimensions": [1,3,224,224], "Format/Datatype": "Row major Int8 format"
  }],
  "ParameterType": "Reformat", "Origin": "REFORMAT", "TacticValue": "0x00000000000003e8",
  "StreamId": 0, "Metadata": ""
},{
  "Name": "node_of_gpu_0/res4_0_branch2a_1 + node_of_gpu_0/res4_0_branch2a_bn_1",
  "LayerType": "CaskConvolution",
  "Inputs": [{
    "Name": "gpu_0/res3_3_branch2c_bn_3", "Dimensions": [16,512,28,28],
    "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format."
  }],
  "Outputs": [{
    "Name": "gpu_0/res4_0_branch2a_bn_2", "Dimensions": [16,256,28,28],
    "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format."
  }],
  "Weights": {"Type": "Int8", "Count": 131072}, "Bias": {"Type": "Float", "Count": 256}
},{
  "Name": "/model.2/cv1/conv/Conv + /model.2/cv1/act/Relu",
  "LayerType": "CaskConvolution",
  "Inputs": [{
    "Name": "/model.1/act/Relu_output_0", "Location": "Device", "Dimensions": [1,50,160,160],
    "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"
  }],
  "Outputs": [{
    "Name": "Reformatted Output Tensor 0", "Location": "Device", "Dimensions": [1,25,160,160],
    "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"
  }],
  "Weights": {"Type": "Half", "Count": 1250}, "Bias": {"Type": "Half", "Count": 25}
},{
  "Name": "(Unnamed Layer* 0) [Shuffle]", "LayerType": "NoOp",
  "Inputs": [{"Name": "foo0", "Format/Datatype": "N/A due to dynamic shapes"}],
  "Outputs": [{"Name": "out", "Format/Datatype": "N/A due to dynamic shapes"}]
},{
  "Name": "PWN(PWN(relu_1), add_1)", "LayerType": "PointWiseV2",
  "Inputs": [{"Name": "x", "Dimensions": [10,2], "Format/Datatype": "Float"}],
  "Outputs": [{"Name": "y", "Dimensions": [10,2], "Format/Datatype": "Float"}]
}], "Bindings": ["data", "y"]}"""


def test_each_layer_has_the_precision_that_it_computes_in() -> None:
    layers = layers_of(PRINTED)
    assert [(layer.kind, layer.precision) for layer in layers] == [
        ("Reformat", "fp32"),
        ("CaskConvolution", "int8"),
        ("CaskConvolution", "fp16"),
        ("NoOp", "other"),
        ("PointWiseV2", "fp32"),
    ]
    assert [layer.is_reformat for layer in layers] == [True, False, False, False, False]


def test_the_report_counts_copies_apart_from_work() -> None:
    report = report_of(layers_of(PRINTED))
    assert report["precisions"] == {"int8": 1, "fp16": 1, "other": 1, "fp32": 1}
    assert report["reformats"] == 1
    assert report["each"][2] == {
        "name": "/model.2/cv1/conv/Conv + /model.2/cv1/act/Relu",
        "kind": "CaskConvolution",
        "precision": "fp16",
    }


def test_an_engine_without_details_has_names_alone() -> None:
    text = json.dumps({"Layers": ["conv1 + relu", "conv2"]})
    assert layers_of(text) == (
        Layer("conv1 + relu", "unknown", "other"),
        Layer("conv2", "unknown", "other"),
    )
