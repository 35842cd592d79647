"""What moto's stacks lack: changes by parameters, outputs, failures, order, what is kept, and the template as given.

`install()` teaches it to this process.
"""

import json
from functools import wraps

from moto.cloudformation.models import Change, CloudFormationBackend, Event, Stack
from moto.cloudformation.parsing import ResourceMap, parse_and_update_resource

MARK = "_has_whole_change_sets"


def install() -> None:
    """Teach moto's CloudFormation, in this process; a second call does nothing."""
    if not hasattr(CloudFormationBackend, MARK):
        setattr(CloudFormationBackend, MARK, True)
        CloudFormationBackend.create_change_set = _keeping_the_original(CloudFormationBackend.create_change_set)
        CloudFormationBackend.execute_change_set = _execute
        CloudFormationBackend.get_template = _original
        ResourceMap.delete = _retaining(ResourceMap.delete)


def _keeping_the_original(create_change_set):
    @wraps(create_change_set)
    def creating(self, **arguments):
        given = arguments["template"]
        # What has its default is a parameter of the stack, too.
        declared = json.loads(given).get("Parameters", {})
        defaults = {name: str(each["Default"]) for name, each in declared.items() if "Default" in each}
        passed = {name: str(value) for name, value in arguments["parameters"].items()}
        arguments["parameters"] = defaults | passed
        identity, stack_id = create_change_set(self, **arguments)
        made = self.change_sets[identity]
        made.original = given
        if made.change_set_type == "UPDATE":
            # moto's own changes leave out what only parameters change.
            known = made.stack.resource_map._resource_json_map | made.template_dict["Resources"]
            actions = made.stack.resource_map.build_resource_diff(made.template_dict, made.parameters)
            made.changes = [
                Change(action, name, known[name]["Type"]) for action, names in actions.items() for name in names
            ]
        return identity, stack_id

    return creating


def _execute(self, change_set_name, stack_name=None) -> None:
    change_set = self.change_sets[change_set_name]
    stack: Stack = self.stacks[change_set.stack_id]
    verb = change_set.change_set_type
    stack._add_stack_event(f"{verb}_IN_PROGRESS", "User Initiated")
    try:
        if verb == "CREATE":
            stack.template, stack.parameters = change_set.template, change_set.parameters
            stack._parse_template()
            stack.resource_map = stack._create_resource_map()
            stack.create_resources()
        else:
            _update(stack.resource_map, change_set.template_dict, change_set.parameters)
            stack.template, stack.parameters = change_set.template, change_set.parameters
            stack._parse_template()
            stack._add_stack_event("UPDATE_COMPLETE")
            stack.status = "UPDATE_COMPLETE"
    except Exception as error:  # noqa: BLE001 - whatever a resource cannot be made of is why it failed
        failed = Event(
            stack.stack_id, stack.name, "Something", "", "AWS::Some::Thing", f"{verb}_FAILED", str(error), ""
        )
        stack.events.append(failed)
        stack.status = "ROLLBACK_COMPLETE" if verb == "CREATE" else "UPDATE_ROLLBACK_COMPLETE"
        stack._add_stack_event(stack.status)
        return
    stack.output_map = stack._create_output_map()
    stack.original = change_set.original


def _retaining(delete):
    @wraps(delete)
    def deleting(self) -> None:
        for each in self._resource_json_map.values():
            if each.get("DeletionPolicy") == "RetainExceptOnCreate":
                each["DeletionPolicy"] = "Retain"
        delete(self)

    return deleting


def _update(resources: ResourceMap, template: dict, parameters: dict) -> None:
    """A function is changed before a version of it is published, and what goes is last; moto has it otherwise."""
    actions, former = resources.build_resource_diff(template, parameters), resources._resource_json_map
    resources._template, resources.input_parameters = template, parameters
    resources.load_mapping()
    resources.load_parameters()
    resources.load_conditions()
    resources._resource_json_map = template["Resources"]

    def is_function(name: str) -> bool:
        return template["Resources"][name]["Type"] == "AWS::Lambda::Function"

    for name in filter(is_function, actions["Modify"]):
        _modify(resources, name)
    for name in actions["Add"]:
        _ = resources[name]
    for name in actions["Modify"]:
        if not is_function(name):
            _modify(resources, name)
    for name in actions["Remove"]:
        if name in resources._parsed_resources:
            resources._delete_resource(resources._parsed_resources.pop(name), former[name])


def _modify(resources: ResourceMap, name: str) -> None:
    resources._parsed_resources[name] = parse_and_update_resource(
        name, resources._resource_json_map[name], resources, resources._account_id, resources._region_name
    )


def _original(self, name_or_stack_id):
    stack = self.get_stack(name_or_stack_id)
    return getattr(stack, "original", stack.template)
